"""Waiting on a condition, never on the clock."""

import time
from concurrent.futures import ThreadPoolExecutor

DEADLINE_SECONDS = 15
PAUSE_SECONDS = 0.002


def until(condition, what, seconds=DEADLINE_SECONDS):
    """The first true value of `condition()`; fails, naming `what`, when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(PAUSE_SECONDS)


def let_pass(seconds):
    """Lets a promised time pass. For waits that are themselves under test, such as Retry-After."""
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(left)


def in_parallel(threads, job, items):
    """`[job(item) for item in items]` by `threads` threads; the first exception is raised here."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(job, items))
