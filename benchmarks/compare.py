"""One model, all variants: who takes how long for the same cells, and who gives the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.baselines import batches, expanded, official, origin
from benchmarks.ceilings import Ceilings, Need, measure_ceilings, need
from benchmarks.ours import Sweep, cache_bytes
from benchmarks.timing import Spread, interleaved
from benchmarks.workload import Swap, Workload
from thoughtgraft.models.reasoner import LatentReasoner

_BATCH = 128
_EXPANDED_HOSTS = 2


@dataclass(frozen=True)
class Case:
    """A model and what is asked of it.

    Attributes:
        name: What tables call it.
        model: In float32.
        low: The same in bfloat16.
        sweep: 6 slots x D donors.
        clean: The same kind of questions without interventions.
        origin_cells: So many cells are run by the origin's algorithm; its time is scaled to all.
        scored: Whether drafts and scores are timed too.
        warm: Whether everything runs once untimed before; it matters for small models and GPUs.
    """

    name: str
    model: LatentReasoner
    low: LatentReasoner
    sweep: Workload
    clean: Workload
    origin_cells: int
    scored: bool = True
    warm: bool = True


@dataclass
class Outcome:
    """What was measured: seconds for all cells in each round, ratios to ours within a round, checks and sizes."""

    name: str
    cells: int
    seconds: dict[str, Spread] = field(default_factory=dict)
    ratios: dict[str, Spread] = field(default_factory=dict)
    subset: dict[str, str] = field(default_factory=dict)
    same_answers: dict[str, str] = field(default_factory=dict)
    ceilings: Ceilings | None = None
    need: Need | None = None
    floor: dict[str, Spread] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


def compare(case: Case, rounds: int) -> Outcome:
    """Time every variant of a case."""
    work, model = case.sweep, case.model
    device = model.device
    strided = list(work.swaps)[:: max(1, len(work.swaps) // case.origin_cells)][: case.origin_cells]
    middle = batches(work, _BATCH)[len(work.swaps) // _BATCH // 2]
    hosts = list(range(min(_EXPANDED_HOSTS, len(work.prompts))))
    copied = [s for s in work.swaps if s.host in hosts]
    whole = batches(case.clean, _BATCH)
    results: dict[str, list[tuple[int, ...]]] = {}
    measured: list[Ceilings] = []

    def kept(name: str, run: Callable[[], list[tuple[int, ...]]]) -> Callable[[], None]:
        return lambda: results.__setitem__(name, run())

    variants: dict[str, Callable[[], None]] = {
        "origin": kept("origin", lambda: origin(model, work, strided)),
        "official": kept("official", lambda: official(model, work, middle)),
        "expanded": kept("expanded", lambda: expanded(model, work, hosts)),
        "ours": kept("ours", Sweep(model, work)),
        "ours bf16": kept("ours bf16", Sweep(case.low, replace(work, fed=work.fed.to(case.low.dtype)))),
        "official, clean": kept("official, clean", lambda: [a for b in whole for a in official(model, case.clean, b)]),
        "ours, clean": kept("ours, clean", Sweep(model, case.clean)),
        "ceilings": lambda: measured.append(measure_ceilings(model, min(1024, len(work.swaps)))),
    }
    if case.scored:
        variants["ours + scores"] = kept("ours + scores", Sweep(model, work, scored=True))
    times = interleaved(variants, rounds, device, warm=case.warm)

    scale = {
        "origin": _tokens(work, work.swaps) / _tokens(work, strided),
        "official": _tokens(work, work.swaps) / _tokens(work, middle),
        "expanded": _tokens(work, work.swaps) / _tokens(work, copied),
    }
    out = Outcome(case.name, len(work.swaps))
    out.subset = {"origin": str(len(strided)), "official": str(len(middle)), "expanded": str(len(copied))}
    scaled = {name: [t * scale.get(name, 1.0) for t in found] for name, found in times.items() if name != "ceilings"}
    out.seconds = {name: Spread.of(found) for name, found in scaled.items()}
    for name, found in scaled.items():
        ours = scaled["ours, clean" if name.endswith("clean") else "ours"]
        if not name.startswith("ours"):
            out.ratios[name] = Spread.of([a / b for a, b in zip(found, ours, strict=True)])
        elif name in ("ours bf16", "ours + scores"):
            out.ratios[name] = Spread.of([b / a for a, b in zip(found, ours, strict=True)])

    index = {swap: i for i, swap in enumerate(work.swaps)}
    for name, cells in {"origin": strided, "official": middle, "expanded": copied}.items():
        out.same_answers[name] = _share(results[name], [results["ours"][index[c]] for c in cells])
    out.same_answers["official, clean"] = _share(results["official, clean"], results["ours, clean"])
    for name in ("ours bf16", "ours + scores"):
        if name in results:
            out.same_answers[name] = _share(results[name], results["ours"])

    if all(len(ids) == work.answer for ids in results["ours"]):  # else nobody can count what was needed
        now = measured[-rounds:]
        out.need, out.memory = need(model, work), _memory(case)
        out.ceilings = Ceilings(*(sorted(getattr(c, f) for c in now)[rounds // 2] for f in ("square", "own", "copy")))
        for name, rate in (("own", [c.own for c in now]), ("square", [c.square for c in now])):
            shares = [out.need.matrices / r / t for r, t in zip(rate, scaled["ours"], strict=True)]
            out.floor[name] = Spread.of(shares)
    return out


def _tokens(work: Workload, cells: Sequence[Swap]) -> int:
    return sum(len(work.prompts[c.host]) + 6 + work.answer for c in cells)


def _share(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]]) -> str:
    return f"{sum(a == b for a, b in zip(found, wanted, strict=True))}/{len(wanted)}"


def _memory(case: Case) -> dict[str, float]:
    """Keys and values in MB: held by the sweep, counted, and what repeating every prefix would hold."""
    model, work = case.model, case.sweep
    config = model.lm.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    rows, k = len(work.swaps) / len(work.prompts), model.num_latents
    shared = sum(len(p) + k for p in work.prompts) * token
    own = len(work.swaps) * (k + work.answer) * token
    repeated = sum(len(p) + k + work.answer for p in work.prompts) * rows * token
    held = cache_bytes(Sweep(model, work))
    mega = 1e6
    return {
        "held MB": held / mega,
        "counted MB": (shared + own) / mega,
        "expanded MB": repeated / mega,
        "held / expanded": held / repeated,
    }
