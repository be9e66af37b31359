"""What `make test` says of its stages."""

import subprocess
import sys

from harness.envoy import ROOT

RUST = "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s"
MAKEFILE = f"""
rust:
\t@echo 'running 7 tests'; echo '{RUST}'; echo '{RUST.replace("7 passed", "1200 passed")}'
pytest:
\t@echo '== 3 passed, 2 skipped, 1 warning in 61.20s (0:01:01) =='
quiet:
\t@echo '4 passed in 0.02s'
broken:
\t@echo '== 2 failed, 5 passed in 1.50s =='; false
silent:
\t@echo 'error: could not compile' >&2; exit 3
"""


def stages(folder, *names):
    (folder / "Makefile").write_text(MAKEFILE)
    ended = subprocess.run([sys.executable, str(ROOT / "tests/stages.py"), "make", *names], cwd=str(folder),
                           capture_output=True, text=True)
    return ended.returncode, ended.stdout.splitlines()


def test_each_stage_is_counted_and_the_last_line_is_the_total(tmp_path):
    status, lines = stages(tmp_path, "rust", "pytest", "quiet")
    assert status == 0
    assert [line for line in lines if line.startswith("==>")][:-1] == [
        "==> stage 1 of 3: make rust", "==> stage 2 of 3: make pytest", "==> stage 3 of 3: make quiet"]
    assert lines[1:4] == ["running 7 tests", RUST, RUST.replace("7 passed", "1200 passed")]
    assert lines[-1].startswith("==> 1,214 tests passed in 3 stages, ") and lines[-1].endswith(" s")


def test_the_first_stage_that_fails_is_the_last_and_named(tmp_path):
    status, lines = stages(tmp_path, "rust", "broken", "quiet")
    assert status != 0 and lines[-1].startswith("==> make broken failed: 1,212 tests passed, 2 failed, stage 2 of 3, ")
    status, lines = stages(tmp_path, "silent", "quiet")
    assert status != 0 and lines[-1].startswith("==> make silent failed: 0 tests passed, 0 failed, stage 1 of 2, ")
