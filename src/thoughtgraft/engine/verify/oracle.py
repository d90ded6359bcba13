"""The check against a slower way to the same numbers: the reference loop, without cache or batch."""

from __future__ import annotations

import torch
from torch import Tensor

from thoughtgraft.engine.reference import Edit, ReferenceRun, reference_run
from thoughtgraft.engine.verify.bench import Bench, gap
from thoughtgraft.engine.verify.certificate import Check, at_most
from thoughtgraft.interventions.arms import Arm
from thoughtgraft.interventions.schedule import schedule


def fast_equals_reference(bench: Bench) -> Check:
    """One problem clean, and with a swap in the middle."""
    slot = bench.model.num_latents // 2
    clean, donor = (reference_run(bench.model, bench.prompts[i], max_new_tokens=1) for i in (0, bench.donors[0]))
    if not bench.slots:
        return at_most("fast equals reference", gap(clean.first_logits.cpu(), bench.logits[0]), bench.bound)
    slow = _reference(bench, Arm("swap", (slot,)), lambda k, live: donor.fed[k], clean)
    fast = bench.alone(bench.row("swap", (slot,), 0, bench.donors[0]))
    figure = max(gap(clean.first_logits.cpu(), bench.logits[0]), gap(slow, fast))
    return at_most("fast equals reference", figure, bench.bound)


def _reference(bench: Bench, arm: Arm, edit: Edit, clean: ReferenceRun) -> Tensor:
    actions = schedule(arm, bench.model.num_latents, bench.model.protocol.edit_delay)
    run = reference_run(bench.model, bench.prompts[0], actions, edit=edit, clean=clean, max_new_tokens=1)
    return run.first_logits.cpu()

