"""waiting.py - a condition is waited for, and not for ever"""

import time

# For what must come, however busy the machine is: tests run side by side. A wait that is cut short here is a failure.
PATIENT_SECONDS = 60


def wait_until(what, condition, seconds=PATIENT_SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.005)
