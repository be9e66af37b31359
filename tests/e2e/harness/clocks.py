"""Processes whose clocks are wrong, by a library that is preloaded."""

import shutil
import subprocess
from pathlib import Path

COMPILER = shutil.which("cc")


def ahead(folder, seconds):
    """The environment of a process whose clock is so far ahead; behind where that is below zero."""
    library = folder / "clock.so"
    if not library.exists():
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", str(library), str(Path(__file__).with_name("clock.c"))], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(seconds)}
