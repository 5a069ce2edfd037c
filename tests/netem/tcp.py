"""tcp.py - how TCP works at both ends of a link, whatever the machine's administrator prefers

A new namespace takes some settings from the machine (the sizes of buffers, those below conf), and others from the
kernel's defaults, which differ between versions. So we set everything here that may influence a connection, and read it
back. For a setting that an older kernel lacks, it does what it always did; a run lists those (missing).
"""

import collections
import json
import os
import sys

import netem

CUBIC, BBR = "cubic", "bbr"     # Linux's default; and one that does not read a loss as a sign that it sends too fast
PLACE = "/proc/sys/net/ipv4/"

# Repeat SYNs and lost data every second. Otherwise the pauses double up to two minutes, and after a black-out of 30 s
# come 30 s more in which nobody tries. A kernel without tcp_rto_max_ms (before 6.15) does not double the first six when
# little is under way, which is so at 20 % loss. With it, more tries must fail before a kernel gives up: its default of
# 15, which otherwise lasts a quarter of an hour, would be 15 s.
OURS = {"tcp_syn_linear_timeouts": 60, "tcp_rto_max_ms": 1000, "tcp_thin_linear_timeouts": 1, "tcp_syn_retries": 60,
        "tcp_synack_retries": 30, "tcp_retries2": 255}

# Linux 6.18's with some gigabytes of memory.
DEFAULTS = {
    "conf/all/rp_filter": 0, "conf/link0/rp_filter": 0, "conf/all/accept_local": 0, "conf/all/forwarding": 0,
    "conf/link0/forwarding": 0,
    "ip_default_ttl": 64, "ip_early_demux": 1, "ip_forward": 0, "ip_local_port_range": "32768 60999", "ip_local_reserved_ports": "",
    "ip_no_pmtu_disc": 0, "ip_nonlocal_bind": 0, "ip_unprivileged_port_start": 1024,
    "tcp_abort_on_overflow": 0, "tcp_adv_win_scale": 1, "tcp_app_win": 31, "tcp_autocorking": 1, "tcp_base_mss": 1024,
    "tcp_comp_sack_delay_ns": 1000000, "tcp_comp_sack_nr": 44, "tcp_comp_sack_slack_ns": 100000, "tcp_dsack": 1,
    "tcp_early_demux": 1, "tcp_early_retrans": 3, "tcp_ecn": 2, "tcp_ecn_fallback": 1, "tcp_fastopen": 1, "tcp_fin_timeout": 60,
    "tcp_frto": 2, "tcp_invalid_ratelimit": 500, "tcp_keepalive_intvl": 75, "tcp_keepalive_probes": 9,
    "tcp_keepalive_time": 7200, "tcp_limit_output_bytes": 4194304, "tcp_max_reordering": 300, "tcp_max_syn_backlog": 1024,
    "tcp_max_tw_buckets": 131072, "tcp_min_rtt_wlen": 300, "tcp_min_snd_mss": 48, "tcp_min_tso_segs": 2,
    "tcp_moderate_rcvbuf": 1, "tcp_mtu_probing": 0, "tcp_no_metrics_save": 0, "tcp_no_ssthresh_metrics_save": 1,
    "tcp_notsent_lowat": 4294967295, "tcp_orphan_retries": 0, "tcp_pacing_ca_ratio": 120, "tcp_pacing_ss_ratio": 200,
    "tcp_pingpong_thresh": 1, "tcp_recovery": 1, "tcp_reordering": 3, "tcp_retrans_collapse": 1, "tcp_retries1": 3,
    "tcp_rfc1337": 0, "tcp_rmem": "4096 131072 6291456", "tcp_rto_min_us": 200000, "tcp_sack": 1, "tcp_shrink_window": 0,
    "tcp_slow_start_after_idle": 1, "tcp_syncookies": 1, "tcp_timestamps": 1,
    "tcp_tso_rtt_log": 9, "tcp_tso_win_divisor": 3, "tcp_tw_reuse": 2, "tcp_window_scaling": 1,
    "tcp_wmem": "4096 16384 4194304", "tcp_workaround_signed_windows": 0,
}
SYSCTLS = {**DEFAULTS, **OURS}

# Runs at an end of the link. Prints the value of each setting afterwards; None if it does not exist.
SCRIPT = """
import json, os, sys
now = {}
for name, value in json.load(sys.stdin).items():
    path = os.path.join(sys.argv[1], name)
    try:
        with open(path, "w") as f:
            f.write(str(value) + chr(10))
    except OSError:
        pass
    try:
        with open(path) as f:
            now[name] = " ".join(f.read().split())
    except FileNotFoundError:
        now[name] = None
print(json.dumps([now, os.access(os.path.join(sys.argv[1], "tcp_sack"), os.W_OK)]))
"""


def settle(link):
    """Set them at both ends. Return: the names that this kernel lacks. Raises netem.NotHere, or netem.Failed."""
    lacking = set()
    for where in ("source", "destination"):
        done = link.run(where, [sys.executable, "-I", "-S", "-c", SCRIPT, PLACE], data=json.dumps(SYSCTLS).encode())
        if done.returncode != 0:
            raise netem.Failed(f"{PLACE} at the {where}: {done.stderr.decode().strip()[-200:]}")
        now, writable = json.loads(done.stdout)
        wrong = [name for name, value in now.items() if value not in (None, str(SYSCTLS[name]))]
        if wrong and not writable:
            raise netem.NotHere(f"{PLACE} may not be written: {wrong[0]} is '{now[wrong[0]]}'")
        if wrong:
            raise netem.Failed(f"{PLACE}{wrong[0]} is '{now[wrong[0]]}', and does not become '{SYSCTLS[wrong[0]]}'")
        lacking |= {name for name, value in now.items() if value is None}
    return lacking


Connection = collections.namedtuple("Connection", "here there state unsent unread")   # ports; what waits in its queues, in bytes
ESTABLISHED, SYN_SENT = "01", "02"


def connections(pid):
    """The connections in a process's network namespace. Unsent includes unacknowledged bytes; for a listening socket
    unread is a count."""
    for family in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{family}", encoding="ascii") as f:
                rows = [line.split() for line in f][1:]
        except FileNotFoundError:
            if family == "tcp":
                raise
            continue    # a kernel without IPv6
        for _, here, there, state, queues, *_ in rows:
            yield Connection(*(int(end.split(":")[1], 16) for end in (here, there)), state,
                             *(int(n, 16) for n in queues.split(":")))


def missing(lacking):
    """A line about the settings that the kernel lacks, if any."""
    ours = sorted(set(lacking) & set(OURS))
    return f"{len(lacking)} of {len(SYSCTLS)} settings are not in this kernel" + (f", {', '.join(ours)} among them" if ours else "") \
        if lacking else ""


def kernel():
    return f"Linux {os.uname().release}"
