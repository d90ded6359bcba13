"""Time the engine (`run`), its scaling (`curves`), its parts (`breakdown`), the map (`probes`); check it (`exact`).

`memory` puts what a batch really takes beside what was planned for it; `store` measures what reading a run of 100,000
and of a million records takes; `coverage` says what intervals and verdicts are worth in simulated runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch

from benchmarks import breakdown, cases, coverage, exact, memory, probes, scaling, store, tables
from benchmarks.compare import compare
from benchmarks.ours import Sweep
from thoughtgraft.engine.memory import keep_freed_memory


def main() -> None:
    """Parse, measure, print markdown, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = ("run", "exact", "curves", "breakdown", "memory", "probes", "store", "coverage")
    parser.add_argument("what", nargs="?", choices=parts, default="run")
    parser.add_argument("--size", action="append", choices=("tiny", "135m", "1b", "codi"), help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer questions and rounds")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5, quick 2)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--cells", type=int, default=6000, help="exact: how many of 6,000 cells")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    args = parser.parse_args()
    if args.what == "memory" and "codi" in (args.size or ()):
        parser.error("memory measures tiny, 135m and 1b")
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # the engine asks for it; the others shall have it too
    rounds = args.rounds or (2 if args.quick else 5)
    result: dict[str, object] = {"machine": tables.machine(args.device)}
    print(f"{result['machine']}\n")

    if args.what == "exact":
        result["exact"] = found = exact.check(args.cells, args.device)
        print(tables.table(list(found), [[f"{v:.4g}" if isinstance(v, float) else v for v in found.values()]]))
    elif args.what == "store":
        costs = store.costs(store.SIZES[:1] if args.quick else store.SIZES, rounds)
        result["store"] = measured = list(costs)
        print(store.cost_table(measured))
    elif args.what == "coverage":
        designs = coverage.DESIGNS // 10 if args.quick else coverage.DESIGNS
        result["coverage"] = coverage.show(coverage.measure(coverage.settings(), designs))
    elif args.what == "memory":
        result["memory"] = packs = memory.measure(args.size or ["tiny", "135m"], args.device)
        print(tables.table(list(packs[0]), [list(row.values()) for row in packs]))
    elif args.what == "curves":
        result["curves"] = curves = scaling.curves(args.device, rounds)
        print(tables.curve_table(curves))
    elif args.what == "probes":
        result["probes"] = timed = probes.measure(args.threads, quick=args.quick)
        print(tables.table(list(timed), [[f"{v:.4g}" if isinstance(v, float) else v for v in timed.values()]]))
    elif args.what == "breakdown":
        for size in args.size or ["tiny"]:
            case = cases.make_cases(size, args.device, args.quick)[0]
            print(f"{case.name}, {len(case.sweep.swaps)} swaps\n")
            print(tables.table(("part", "CPU-s", "share"), breakdown.breakdown(Sweep(case.model, case.sweep))))
    else:
        sizes = args.size or (["1b", "codi"] if args.device == "cuda" else ["tiny", "135m", "codi"])
        outcomes = []
        for size in sizes:
            for case in cases.make_cases(size, args.device, args.quick):
                outcomes.append(compare(case, rounds))
                print(tables.details(outcomes[-1]), flush=True)
                print()
        result["outcomes"] = outcomes
        print(tables.targets(outcomes))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, default=_plain))


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


if __name__ == "__main__":
    main()
