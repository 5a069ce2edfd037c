"""waiting.py - wait for a condition, with a deadline"""

import time

# For things that must come, however busy the machine is: tests run side by side. A wait that ends here has failed.
PATIENT_SECONDS = 60


def wait_until(what, condition, seconds=PATIENT_SECONDS, every=0.01, failure=AssertionError):
    """Ask condition() until it is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (got := condition()):
        if time.monotonic() > end:
            raise failure(f"waited {seconds:g} s for {what}")
        time.sleep(every)
    return got
