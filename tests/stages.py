"""Runs the stages of `make test` one after the other: says which of how many, and at the end how many tests passed.

    python tests/stages.py MAKE STAGE...      each STAGE is a target of the Makefile
"""

import os
import re
import subprocess
import sys
import time

# The last line of a test binary of Rust, or of pytest.
RUST = re.compile(rb"^test result: \w+\. (\d+) passed; (\d+) failed;", re.M)
PYTEST = re.compile(rb"^(?=[^\n]* in \d+\.\d+s)=*(?: ?(\d+) failed,)? ?(\d+) passed", re.M)


def main():
    make, *stages = sys.argv[1:]
    started, passed = time.monotonic(), 0
    for number, stage in enumerate(stages, 1):
        print(f"==> stage {number} of {len(stages)}: make {stage}", flush=True)
        status, output = run([make, "--no-print-directory", stage])
        passed += sum(count(output))
        if status:
            failed = sum(count(output, failed=True))
            print(f"==> make {stage} failed: {passed:,} tests passed, {failed:,} failed, stage {number} of {len(stages)}, "
                  f"{seconds(started)}", flush=True)
            return status
    print(f"==> {passed:,} tests passed in {len(stages)} stages, {seconds(started)}", flush=True)
    return 0


def run(command):
    """Its exit status and what it printed, which is passed on as it comes."""
    output = bytearray()
    with subprocess.Popen(command, stdout=subprocess.PIPE, close_fds=False, env=dict(os.environ, PYTHONUNBUFFERED="1")) as process:
        while part := process.stdout.read1():
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
            output += part
    return process.returncode, bytes(output)


def count(output, failed=False):
    yield from (int(found[2 if failed else 1]) for found in RUST.finditer(output))
    yield from (int(found[1 if failed else 2] or 0) for found in PYTEST.finditer(output))


def seconds(started):
    return f"{time.monotonic() - started:,.0f} s"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
