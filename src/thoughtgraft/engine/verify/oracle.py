"""Checks against slower ways to the same numbers: the reference loop, and the model library's own forward."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from thoughtgraft.engine.drafts import make_draft
from thoughtgraft.engine.reference import Edit, ReferenceRun, reference_run
from thoughtgraft.engine.rollout import Source, rollout
from thoughtgraft.engine.verify.bench import Bench, gap, logits_of, slot_name
from thoughtgraft.engine.verify.certificate import Check, at_most
from thoughtgraft.engine.verify.plain import plain_run
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


def every_arm(bench: Bench) -> Check:
    """All kinds of edits on one host, each written here by hand for the reference."""
    model, k = bench.model, bench.model.num_latents
    runs = [reference_run(model, p, max_new_tokens=1) for p in bench.prompts]
    clean, donor = runs[0], runs[bench.donors[0]]
    others = torch.stack([run.fed for run in runs[1:]]).mean(0)
    middle, every = k // 2, tuple(bench.slots)

    def swap(slot: int, live: Tensor) -> Tensor:
        return donor.fed[slot]

    cases: list[tuple[Arm, Edit]] = [(Arm("swap", (slot,)), swap) for slot in bench.slots]
    cases += [(Arm("swap", every), swap)]
    cases += [(Arm("swap", (slot,), rule), swap) for slot in {0, middle} for rule in ("freeze_input", "freeze_kv")]
    cases += [(Arm("zero", (middle,)), lambda slot, live: torch.zeros_like(live))]
    cases += [(Arm("mean", (middle,)), lambda slot, live: others[slot])]
    cases += [(Arm("skip", (slot,)), swap) for slot in bench.slots]
    worst, detail = 0.0, ""
    for arm, edit in cases:
        schedules = schedule(arm, k, model.protocol.edit_delay)
        row = replace(bench.row(arm.method, arm.slots, 0, bench.donors[0]), actions=schedules)
        found = gap(_reference(bench, arm, edit, clean), bench.alone(row))
        if found > worst:
            worst, detail = found, f"most for {arm.label}, of {len(cases)} arms"
    return at_most("every arm equals reference", worst, bench.bound, detail)


def _reference(bench: Bench, arm: Arm, edit: Edit, clean: ReferenceRun) -> Tensor:
    actions = schedule(arm, bench.model.num_latents, bench.model.protocol.edit_delay)
    run = reference_run(bench.model, bench.prompts[0], actions, edit=edit, clean=clean, max_new_tokens=1)
    return run.first_logits.cpu()


def library(bench: Bench) -> Check:
    """One problem clean, and with a swap of its first thought, through the library's own forward."""
    model, delay = bench.model, bench.model.protocol.edit_delay
    host, donor = (plain_run(model, bench.problems[i].question) for i in (0, bench.donors[0]))
    if not bench.slots:
        return at_most("library agrees", gap(host.logits, bench.alone(bench.row("baseline", (), 0))), bench.bound)
    swapped = plain_run(model, bench.problems[0].question, lambda k, live: donor.fed[0] if k == delay else live)
    prompts = [model.prompt(bench.problems[i].question) for i in (0, bench.donors[0])]
    rows = [bench.row("baseline", (), 0), bench.row("swap", (0,), 0, 1)]
    fed = rollout(model, prompts, rows[:1], max_new_tokens=1).fed
    found = rollout(model, prompts, rows, Source.from_fed(fed), max_new_tokens=1, keep_logits=True)
    clean, moved = logits_of(found)
    worst, detail = gap(host.logits, clean), "clean"
    if (swap := gap(swapped.logits, moved)) > worst:
        worst, detail = swap, f"swap of {slot_name(0)}"
    return at_most("library agrees", worst, bench.bound, detail)


def skip(bench: Bench) -> Check:
    """Each slot of one problem left out, against the library's pass over the shorter sequence."""
    model, question = bench.model, bench.problems[0].question
    clean, prompt = plain_run(model, question).steps, model.prompt(question)
    worst, detail = 0.0, ""
    for slot in bench.slots:

        def without(k: int, live: Tensor, slot: int = slot + model.protocol.edit_delay) -> Tensor | None:
            return None if k == slot else clean[k] if k == slot + 1 else live

        found = gap(plain_run(model, question, without).logits, bench.alone(bench.row("skip", (slot,), 0), prompt))
        if found > worst:
            worst, detail = found, f"most for {slot_name(slot)}"
    return at_most("skip is one thought less", worst, bench.bound, detail)


def drafts(bench: Bench) -> Check:
    """Swapped rows with their hosts' clean answers as drafts, against the same rows without."""
    answers = bench.base.answers
    made = [
        make_draft(bench.model, ids, stopped, problem.answer)
        for ids, stopped, problem in zip(answers.token_ids, answers.stopped, bench.problems, strict=True)
    ]
    rows = bench.every_slot("swap")
    plain = logits_of(bench.roll(rows))
    with_drafts = rollout(
        bench.model,
        bench.prompts,
        rows,
        bench.source,
        drafts=made,
        max_new_tokens=bench.tokens,
        keep_logits=True,
    )
    return at_most("drafts change nothing", gap(plain, logits_of(with_drafts)), bench.bound)
