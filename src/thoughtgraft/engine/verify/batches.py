"""Checks that nothing but the problem decides its answer: batch, order, padding, a second call."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.known import Baseline, Swap
from thoughtgraft.engine.collect import encode
from thoughtgraft.engine.reference import in_one_pass, reference_run
from thoughtgraft.engine.rows import Source
from thoughtgraft.engine.verify.bench import Bench, disturbing, gap, logits_of, noise_like
from thoughtgraft.engine.verify.statements import at_least, at_most
from thoughtgraft.models.reasoner import Prompt
from thoughtgraft.records.certificate import Check
from thoughtgraft.tasks.problem import Problem, ProblemSet


def batch(bench: Bench) -> Check:
    """Each prompt alone, against all together."""
    alone = torch.stack([bench.alone(row) for row in bench.rows(Baseline())])
    return at_most("batch invariance", gap(alone, bench.logits), bench.bound)


def order(bench: Bench) -> Check:
    """The prompts in reverse, with a swap of each first slot beside the clean run, so that rows are packed anew."""
    back = bench.prompts[::-1]
    last = len(back) - 1
    rows = [replace(row, problem=last - row.problem) for row in bench.rows(Swap(), 0) + bench.rows(Baseline())]
    found = logits_of(bench.roll(rows, back))
    usual = logits_of(bench.roll(bench.rows(Baseline()) + bench.rows(Swap(), 0)))
    usual = torch.cat([usual[len(back) :], usual[: len(back)]])
    return at_most("order invariance", gap(found, usual), bench.bound)


def padding(bench: Bench) -> Check:
    """Each problem encoded and run by itself, and encoded and run with a question as long as two beside it."""
    model, neighbour = bench.model, _longer(bench)
    figure, changed = 0.0, 0
    for problem in bench.problems:
        alone, beside = (encode(model, ProblemSet((problem, *others), "probe")) for others in ((), (neighbour,)))
        rows = [bench.row(Baseline(), (), i) for i in range(2)]
        found = gap(bench.alone(rows[0], alone[0]), logits_of(bench.roll(rows, beside))[0])
        figure, changed = max(figure, found), changed + (found > bench.bound)
    detail = f"{changed} of {len(bench.problems)} outputs change with the length of the question beside them"
    if model.protocol.pads_visible:
        detail += f": the protocol {model.protocol.name} shows the padding to everything after the question"
    return at_most("padding probe", figure, bench.bound, detail if changed else "")


def _longer(bench: Bench) -> Problem:
    """A question that is longer than all others, if the model's context has room; else the longest."""
    questions = sorted((p.question for p in bench.problems), key=lambda q: len(bench.model.question_ids(q)))
    double = f"{questions[-1]} {questions[-1]}"
    limit = bench.model.max_positions
    need = len(bench.model.question_ids(double)) + bench.model.num_latents + 2
    return Problem("longer", double if limit is None or need <= limit else questions[-1], None)


def fast_equals_reference(bench: Bench) -> Check:
    """One problem clean, and with a swap in the middle, against the plain loop, and against one pass without a cache.

    The plain loop is `think`; the one pass is fed what the loop fed, so that the loop is looked at, too.
    """
    name, model, prompt = "fast equals reference", bench.model, bench.prompts[0]
    slot, donor = model.num_latents // 2, bench.donors[0]
    clean = reference_run(model, prompt, max_new_tokens=1)
    once = in_one_pass(model, prompt, clean.steps)
    figure = max(gap(found.cpu(), bench.logits[0]) for found in (clean.first_logits, once))
    if bench.slots:
        theirs = reference_run(model, bench.prompts[donor], max_new_tokens=1).fed
        actions = schedule(Arm(Swap(), (slot,)), model.num_latents, model.loop.step_of)
        slow = reference_run(model, prompt, actions, edit=lambda k, live: theirs[k], clean=clean, max_new_tokens=1)
        fast, once = bench.alone(bench.row(Swap(), (slot,), 0, donor)), in_one_pass(model, prompt, slow.steps)
        figure = max(figure, *(gap(found.cpu(), fast) for found in (slow.first_logits, once)))
    return at_most(name, figure, bench.bound)


def hidden_positions(bench: Bench) -> Check:
    """Noise in the filler columns before shorter prompts."""
    model = bench.model
    prompts = [model.prompt(p.question) for p in (*bench.problems, _longer(bench))]
    rows = [bench.row(Baseline(), (), h) for h in range(len(prompts))]
    length = max(map(len, prompts))

    def noisy(embeds: Tensor) -> Tensor:
        embeds = embeds.clone()
        for i, prompt in enumerate(prompts):
            filler = embeds[i, : length - len(prompt)]
            filler += noise_like(filler, i) if len(filler) else 0
        return embeds

    usual = logits_of(bench.roll(rows, prompts))
    with disturbing(model, noisy):
        found = logits_of(bench.roll(rows, prompts))
    filled = sum(length - len(p) for p in prompts)
    return at_most("hidden positions are not seen", gap(found, usual), bench.bound, f"{filled} columns of filler")


def visible_positions(bench: Bench) -> Check:
    """Noise in one token at a time of one question; with the pads before it where the protocol shows them.

    The shortest question: every one of its tokens is a prompt of that length, so memory goes with its square.
    """
    name, model = "visible positions are seen", bench.model
    shortest = min((p.question for p in bench.problems), key=lambda q: len(model.question_ids(q)))
    prompt: Prompt = model.prompt(shortest, 3 if model.protocol.pads_visible else 0)
    prompts = [prompt] * len(prompt)
    rows = [bench.row(Baseline(), (), i) for i in range(len(prompts))]

    def noisy(embeds: Tensor) -> Tensor:
        at = torch.arange(len(prompts), device=embeds.device)
        embeds = embeds.clone()
        embeds[at, at] += noise_like(embeds[at, at], 0)
        return embeds

    usual = logits_of(bench.roll(rows, prompts))
    with disturbing(model, noisy):
        moved = (logits_of(bench.roll(rows, prompts)) - usual).abs().amax(1)
    least = int(moved.argmin())
    detail = f"least at token {least} of {len(prompts)}" + (f", {prompt.pad} of them pads" if prompt.pad else "")
    return at_least(name, float(moved[least]), bench.bound, detail)


def determinism(bench: Bench) -> Check:
    """The clean run and the swaps of every slot, if there is one, each twice."""
    figure = gap(logits_of(bench.roll(bench.rows(Baseline()))), bench.logits)
    if swaps := bench.every_slot(Swap()):
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
        ("the clean run", logits_of(bench.roll(bench.rows(Baseline()))), bench.logits),
    ):
        if not torch.equal(now, before):
            figure, detail = max(figure, gap(now, before)), f"changed: {what}"
    return at_most("cache isolation", figure, 0, detail)
