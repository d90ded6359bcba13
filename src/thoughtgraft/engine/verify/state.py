"""Checks that running leaves no trace: the same bits twice, and again after all edits."""

from __future__ import annotations

import torch

from thoughtgraft.engine.rollout import Source
from thoughtgraft.engine.verify.bench import Bench, gap, logits_of
from thoughtgraft.engine.verify.certificate import Check, at_most


def determinism(bench: Bench) -> Check:
    """The clean run and the swaps of every slot, if there is one, each twice."""
    figure = gap(logits_of(bench.roll(bench.rows("baseline"))), bench.logits)
    if swaps := bench.every_slot("swap"):
        first, second = (logits_of(bench.roll(swaps)) for _ in range(2))
        figure = max(figure, gap(first, second))
    return at_most("determinism", figure, 0)


def cache_isolation(bench: Bench) -> Check:
    """The saved thoughts that edits drew on, and the clean run, after everything else has run."""
    assert bench.source is not None
    kept = Source.from_fed(bench.base.fed)
    figure, detail = 0.0, ""
    for what, now, before in (
        ("the saved thoughts", bench.source.fed, kept.fed),
        ("their means", bench.source.mean, kept.mean),
        ("the clean run", logits_of(bench.roll(bench.rows("baseline"))), bench.logits),
    ):
        if not torch.equal(now, before):
            figure, detail = max(figure, gap(now, before)), f"changed: {what}"
    return at_most("cache isolation", figure, 0, detail)
