"""Measures bursar in a real Envoy beside what one would choose instead.

    make bench                    about three minutes
    make bench LONG=1             for the record
    make bench ARGS='--variants none,noop,held --workloads 2k,sse --rounds 3'

The report is in target/bench/: report.md, samples.json.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report  # noqa: E402
import rounds  # noqa: E402
import variants  # noqa: E402
import workloads  # noqa: E402
from stage import ROOT  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="more rounds, by several sets of processes")
    parser.add_argument("--rounds", type=int, help="rounds with each set of processes (default: 3; long: 7)")
    parser.add_argument("--generations", type=int, help="sets of processes (default: 1; long: 4)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="requests of a sample, times this")
    parser.add_argument("--variants", type=chosen(variants.BY_NAME), default=variants.VARIANTS, metavar="A,B", help=", ".join(variants.BY_NAME))
    parser.add_argument("--workloads", type=chosen(workloads.BY_NAME), default=workloads.WORKLOADS, metavar="A,B", help=", ".join(workloads.BY_NAME))
    parser.add_argument("--seed", type=int, help="of the order")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench", help="folder of the report (default: target/bench)")
    return parser.parse_args()


def chosen(known):
    return lambda names: tuple(known[name] for name in names.split(","))


def main():
    options = arguments()
    if not sys.platform.startswith("linux"):
        print("make bench needs Linux: it pins processes to cores and reads the kernel's clock of each.\n"
              "On a Mac run it in a virtual machine or a container.", file=sys.stderr)
        return 1
    generations = options.generations or (4 if options.long else 1)
    per_generation = options.rounds or (7 if options.long else 3)
    samples, witnesses = rounds.play(options.variants, options.workloads, generations, per_generation, options.scale, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    stored = {"samples": [asdict(sample) for sample in samples], "witnesses": witnesses}
    (options.out / "samples.json").write_text(json.dumps(stored))
    text = report.write(samples, witnesses, options.variants, options.workloads)
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
