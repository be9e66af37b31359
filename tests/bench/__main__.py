"""Measures bursar in a real Envoy beside what one would choose instead.

    make bench                    about three minutes
    make bench LONG=1             for the record: about twenty minutes
    make bench REV=COMMIT         beside the module of that commit (default: d7dc505)
    make bench ARGS=--scale       what grows with tenants and workers
    make bench ARGS='--variants none,noop,held --workloads 2k,sse --rounds 3'

The report is in target/bench/: report.md, bench.svg, samples.json.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report  # noqa: E402
import rounds  # noqa: E402
import scale  # noqa: E402
import variants  # noqa: E402
import workloads  # noqa: E402
from stage import ROOT  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="more rounds, by several sets of processes")
    parser.add_argument("--rounds", type=int, help="rounds with each set of processes (default: 3; long: 5)")
    parser.add_argument("--generations", type=int, help="sets of processes (default: 1; long: 3)")
    parser.add_argument("--scale", action="store_true", help="tenants, workers, memory and start instead (long: too)")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of each sample's requests (default: all)")
    parser.add_argument("--variants", metavar="A,B", help=", ".join(each.name for each in variants.VARIANTS) + "; with --before: before, before-passing")
    parser.add_argument("--workloads", type=chosen(workloads.BY_NAME), default=workloads.WORKLOADS, metavar="A,B", help=", ".join(workloads.BY_NAME))
    parser.add_argument("--before", type=Path, metavar="FILE", help="the module of an earlier commit, to be run in the same rounds")
    parser.add_argument("--seed", type=int, help="of the order")
    parser.add_argument("--again", action="store_true", help="only write the report anew, of the samples in the folder")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench", help="folder of the report (default: target/bench)")
    options = parser.parse_args()
    known = {each.name: each for each in variants.VARIANTS + (variants.before(options.before) if options.before else ())}
    try:
        options.variants = chosen(known)(options.variants) if options.variants else tuple(known.values())
    except KeyError as name:
        parser.error(f"no variant {name}: {', '.join(known)}")
    return options


def command():
    words = sys.argv[1:]
    if "--before" in words:   # which the Makefile adds
        at = words.index("--before")
        del words[at:at + 2]
    long = " LONG=1" if "--long" in words else ""
    rest = " ".join(word for word in words if word != "--long")
    return f"make bench{long}" + (f" ARGS='{rest}'" if rest else "")


def chosen(known):
    return lambda names: tuple(known[name] for name in names.split(","))


def main():
    options = arguments()
    if not sys.platform.startswith("linux"):
        print("make bench needs Linux: it pins processes to cores and reads the kernel's clock of each.\n"
              "On a Mac run it in a virtual machine or a container.", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    stored = options.out / ("scale.json" if options.scale else "samples.json")
    if options.again:
        told = json.loads(stored.read_text())
    else:
        told = {"command": command(), "about": report.machine(), **measure(options)}
        stored.write_text(json.dumps(told))
    print(report.write(options.out, told, options.variants, options.workloads))
    return 0


def measure(options):
    told = {}
    if not options.scale:
        generations = options.generations or (3 if options.long else 1)
        per_generation = options.rounds or (5 if options.long else 3)
        samples, witnesses = rounds.play(options.variants, options.workloads, generations, per_generation, options.share, options.seed)
        told.update(samples=[asdict(sample) for sample in samples], witnesses=witnesses)
    if options.scale or options.long:
        print("scale: tenants, workers, memory, start", flush=True)
        told["scale"] = scale.measure(options.long, options.share, options.before)
    return told


if __name__ == "__main__":
    sys.exit(main())
