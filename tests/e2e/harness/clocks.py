"""Processes whose clocks are wrong, by a library that is preloaded."""

import calendar
import mmap
import shutil
import struct
import subprocess
import time
from pathlib import Path

COMPILER = shutil.which("cc")


def ahead(folder, seconds):
    """The environment of a process whose clock is so far ahead; behind where that is below zero."""
    library = folder / "clock.so"
    if not library.exists():
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", str(library), str(Path(__file__).with_name("clock.c"))], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(seconds)}


class Clock:
    """A clock that several processes have: so far ahead, and set forward at will."""

    def __init__(self, folder, seconds):
        self.ahead = self._begun = seconds
        path = folder / "clock"
        path.write_bytes(bytes(8))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self.env = {**ahead(folder, seconds), "CLOCK_FILE": str(path)}

    def shifted(self, seconds):
        """The environment of a process whose clock is so far ahead of this one."""
        return {**self.env, "CLOCK_AHEAD": str(self._begun + seconds)}

    def now(self):
        return time.time() + self.ahead

    def set_to(self, now):
        """A whole second of it, or the one after that, is now."""
        more = int(now - self.now()) + 1
        (before,) = struct.unpack("=q", self._shared[:])
        self._shared[:] = struct.pack("=q", before + more)
        self.ahead += more


def next_month(now):
    """When the next month begins, UTC, in seconds since 1970."""
    year, month = time.gmtime(now)[:2]
    return calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))


def next_day(now):
    """When the next day begins that is not a month's first, in seconds since 1970."""
    day = (int(now) // 86_400 + 1) * 86_400
    return day if time.gmtime(day).tm_mday > 1 else day + 86_400


ENDS = {"day": next_day, "month": next_month}
