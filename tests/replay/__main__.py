"""Replays a trace of LLM requests over twenty tenants through a real Envoy, and audits the books.

    python tests/replay [TRACE.csv]      columns TIMESTAMP, ContextTokens, GeneratedTokens; else a trace of its own
    python tests/replay --isolation      twice, with and without the noisy tenant
    python tests/replay --priorities     a flood of fallbacks beside tenants that matter more
    python tests/replay --pressure [TRACE.csv]   a provider that is out of quota, through two proxies and the openai SDK
    python tests/replay --crowd          a thousand requests at once on a budget worth a hundred
    python tests/replay --hot            one tenant, as fast as 1, 2 and 4 workers can
    python tests/replay --made-up        a million tenants that nobody configured
    python tests/replay --configured     up to a hundred thousand tenants that somebody did

The exit status is 1 if a budget was overspent or the books disagree, or if a flood or made-up tenants cost others anything but time.
"""

import argparse
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

import configured  # noqa: E402
import crowd  # noqa: E402
import hot  # noqa: E402
import made_up  # noqa: E402
import pressure  # noqa: E402
import priorities  # noqa: E402
import tables  # noqa: E402
import workload  # noqa: E402
from play import run  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(prog="make replay", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", help="path of a CSV file")
    parser.add_argument("--limit", type=int, help="only so many of the trace's first requests")
    parser.add_argument("--requests", type=int, default=3_000, help="of the synthetic trace (default: %(default)s)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--seconds", type=float, help="how long to send (default: 60; 20 for the synthetic trace)")
    pace.add_argument("--speed", type=float, help="how many times faster than the trace")
    parser.add_argument("--without-max-tokens", action="store_true", help="requests name no maximum")
    parser.add_argument("--bytes-per-token", type=int, default=4, choices=range(1, 9), metavar="1-8",
                        help="of the prompts (default: %(default)s); 1 is all that a reservation allows for")
    parser.add_argument("--streaming", action="store_true", help="bursar with hold_headers: false")
    parser.add_argument("--isolation", action="store_true", help="with and without the noisy tenant")
    parser.add_argument("--priorities", action="store_true", help="a flood of fallbacks (default: 10 seconds of it)")
    parser.add_argument("--pressure", action="store_true", help="a provider out of quota (default: 130 seconds, four times)")
    parser.add_argument("--minute", type=float, default=60, help="seconds that the minute of its quota takes (default: %(default)s)")
    parser.add_argument("--crowd", action="store_true", help="the crowd instead of a trace")
    parser.add_argument("--hot", type=int, nargs="?", const=50_000, metavar="N", help="one tenant's N requests (default: %(const)s)")
    parser.add_argument("--made-up", type=int, nargs="?", const=1_000_000, metavar="N", help="so many ids (default: %(const)s)")
    parser.add_argument("--configured", action="store_true", help="up to 100,000 tenants in the configuration")
    return parser.parse_args()


def main():
    options = arguments()
    allow_many_sockets()
    if options.priorities:
        return report_priorities(options.seconds or 10)
    if options.crowd:
        return report_crowd()
    if options.hot:
        return report_hot(options.hot)
    if options.made_up:
        return report_made_up(options.made_up)
    if options.configured:
        configured.print_rows(configured.run())
        return 0
    rows = workload.read_trace(options.trace, options.limit) if options.trace else workload.synthetic_trace(options.requests)
    if options.pressure:
        return report_pressure(rows, options.seconds or 130, options.minute)
    seconds = pace(options, rows)
    requests = workload.spread(rows, seconds, not options.without_max_tokens, options.bytes_per_token)
    speed = rows[-1].at / seconds
    name = Path(options.trace).name if options.trace else "synthetic trace"
    print(f"{name}: {len(rows):,} requests of {rows[-1].at:,.0f} s, sent in {seconds:,.0f} s ({speed:.1f} times faster), "
          f"{'without' if options.without_max_tokens else 'with'} max_tokens, over {len(workload.TENANTS)} tenants\n")
    if options.isolation:
        return report_isolation(requests, seconds, not options.streaming)
    return report_replay(run(requests, seconds, not options.streaming))


def pace(options, rows):
    if options.speed:
        return rows[-1].at / options.speed
    return options.seconds or (60 if options.trace else 20)


def allow_many_sockets():
    """A thousand clients are two thousand sockets in Envoy, which inherits this."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# --- reports: each prints, and returns the exit status -----------------------


def report_replay(result):
    tables.print_replay(result)
    faults = result.faults()
    tables.print_books(result.bursar, result.witnesses, result.left, faults)
    return verdict(overspent(result), faults)


def overspent(result):
    """Who spent more than the budget and what the reservations missed, which is nothing where max_tokens is sent."""
    found = []
    for tenant in workload.TENANTS:
        over, missed = result.overspend(tenant), result.missed(tenant)
        if over:
            print(f"{tenant.name} overspent {tables.amount(over, tenant.unit)}; its reservations "
                  f"may have missed {tables.amount(missed, tenant.unit)}")
        if over > missed:
            found.append(tenant.name)
    return found


def report_isolation(requests, seconds, hold_headers):
    both = run(requests, seconds, hold_headers)
    alone = run(requests, seconds, hold_headers, without=workload.NOISY)
    tables.print_isolation(both, alone)
    faults = both.faults() + alone.faults()
    faults += [f"{name} was not served the same" for name in workload.QUIET
               if tables.seen(both, [name])[:3] != tables.seen(alone, [name])[:3]]
    print(*[f"  {fault}" for fault in faults[:20]] or ["Each quiet tenant was served the same, with the noisy one and without."], sep="\n")
    return verdict(overspent(both) + overspent(alone), faults)


def report_priorities(seconds):
    results = priorities.run(seconds)
    faults = []
    for result in results:
        priorities.print_result(result)
        faults += [f"{result.name}: {fault}" for fault in result.faults + priorities.unkept(result)]
    print(*[f"  {fault}" for fault in faults[:20]] or ["Others than the flood were served as they asked. The books agree to the token and the micro-dollar."], sep="\n")
    return 1 if faults else 0


def report_pressure(rows, seconds, minute):
    print(f"{len(rows):,} requests in {seconds:,.0f} s of a model whose quota is {pressure.QUOTA:.0%} of what is asked of it, "
          f"through {pressure.PROXIES} proxies, by the openai SDK {pressure.openai.__version__} at its defaults.\n", flush=True)
    results = list(pressure.run(rows, seconds, minute))
    pressure.print_results(results)
    missed = pressure.missed(results)
    print(*[f"  {each}" for each in missed[:20]] or ["429s in applications are 20 times fewer, critical tenants have none and wait no "
                                                  "longer, and a healed model is used within 2 s."], sep="\n")
    return 1 if missed else 0


def report_crowd():
    crowds, bursar, witnesses, faults = crowd.run()
    print(f"{crowd.SIZE:,} requests at once on a budget worth {crowd.WORTH}. dear: each costs all that was reserved for it, none is answered "
          "before all are decided about.\npatient: four bytes a token, and who is told that the budget is held comes again when told to.\n")
    head = ["crowd", "budget", "spent", "admitted", "refused: held", "refused: spent", "tries"]
    rows = [[each.tenant, f"{each.budget:,}", f"{witnesses.spent(each.tenant, 'tokens'):,}",
             f"{sum(outcome.status == 200 for outcome in each.final):,}", f"{each.refusals()['budget_held']:,}",
             f"{each.refusals()['budget_exhausted']:,}", f"{len(each.outcomes):,}"] for each in crowds]
    tables.print_table(head, rows)
    print()
    tables.print_books(bursar, witnesses, crowds, faults)
    return verdict([each.tenant for each in crowds if witnesses.spent(each.tenant, "tokens") > each.budget], faults)


def report_hot(count):
    print(f"{count:,} requests each as fast as they go: of one tenant, and for comparison of {hot.MANY}.\n", flush=True)
    results = hot.run_all(count)
    hot.print_results(results)
    lost = [str(result.workers) for result in results if result.lost()]
    print(f"Updates were lost with {', '.join(lost)} workers." if lost else "No update was lost: the books agree to the token.")
    return 1 if lost else 0


def report_made_up(count):
    print(f"Requests of {count:,} tenant ids, one each, that nobody configured and a plan allows "
          "(a million takes about four minutes).\n", flush=True)
    rounds, faults = made_up.run(count)
    made_up.print_rounds(rounds)
    print(*[f"  {fault}" for fault in faults[:20]] or [f"{len(made_up.RECENT)} of them who had asked before kept their own accounts, "
                                                  "to the token; all that the others used is in the metrics."], sep="\n")
    return 1 if faults else 0


def verdict(overspent_by, faults):
    print(f"Overspent by: {', '.join(overspent_by) or 'nobody'}.")
    return 1 if overspent_by or faults else 0


if __name__ == "__main__":
    sys.exit(main())
