"""On the embedded trained model in float32, every answer of the engine is the reference's, whoever it runs with."""

from __future__ import annotations

import random

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.known import Swap
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine.answer import make_draft
from thoughtgraft.engine.collect import encode
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.rollout import rollout
from thoughtgraft.engine.rows import Row, Source
from thoughtgraft.models.load import load_model
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.load import load_problems

HOSTS, TOKENS = 10, 24


def test_sampled_answers_equal_the_reference() -> None:
    """60 of 600 swaps against the oracle; `python -m benchmarks exact` does 6,000."""
    model = load_model("tiny-codi", device="cpu", dtype="float32")
    problems = load_problems("arithmetic:test", n=HOSTS, seed=0)
    prompts = encode(model, problems)
    clean = [reference_run(model, p, max_new_tokens=TOKENS) for p in prompts]
    think = tuple([Action(Feed.CLEAN)] * model.num_latents)
    base = rollout(model, prompts, [Row(at, think) for at in range(HOSTS)], max_new_tokens=TOKENS)
    assert base.answers.token_ids == tuple(run.token_ids for run in clean)

    swaps = [(h, d, k) for h in range(HOSTS) for k in range(6) for d in range(HOSTS) if d != h]
    rows = [Row(h, schedule(Arm("swap", (k,)), 6), Swap(), h, d) for h, d, k in swaps]
    source = Source.from_fed(base.fed)
    drafts = [
        make_draft(model, ids, stopped, p.gold, NUMBER)
        for ids, stopped, p in zip(base.answers.token_ids, base.answers.stopped, problems, strict=True)
    ]
    plain = rollout(model, prompts, rows, source, max_new_tokens=TOKENS).answers
    drafted = rollout(model, prompts, rows, source, drafts=drafts, max_new_tokens=TOKENS).answers
    assert plain.token_ids == drafted.token_ids
    assert plain.stopped == drafted.stopped
    assert len(set(plain.token_ids)) > 10

    for i in random.Random(0).sample(range(len(swaps)), 60):
        host, donor, slot = swaps[i]
        wanted = reference_run(
            model,
            prompts[host],
            schedule(Arm("swap", (slot,)), 6),
            edit=lambda k, live, donor=donor: clean[donor].fed[k],
            clean=clean[host],
            max_new_tokens=TOKENS,
        )
        assert plain.token_ids[i] == wanted.token_ids, swaps[i]
