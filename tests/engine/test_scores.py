"""Scores, norms and cosines in the model's own precision: a float64 model's are float64's, others' float32 at least."""

from __future__ import annotations

import functools

import pandas as pd
import pytest
import torch
from tests.engine.tiny import FAMILIES, Case, loaded, questions, run_cases, tiny
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.answer import answer_tail, make_draft
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.rows import Source
from thoughtgraft.engine.run import run
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.numbers import extract_answer
from thoughtgraft.tasks.problem import Problem, ProblemSet

TOKENS, K = 8, 6
ARMS = [Arm("baseline"), Arm("swap", (0,)), Arm("swap", (2, 4)), Arm("zero", (3,)), Arm("swap", (5,))]


@functools.cache
def problems(family: str) -> ProblemSet:
    return ProblemSet(
        tuple(Problem(str(i), q, extract_answer(str(i + 20))) for i, q in enumerate(questions(family)[:5]))
    )


@functools.cache
def records(family: str) -> pd.DataFrame:
    plan = Plan(tuple(ARMS), n_donors=2, seed=1)
    return run(loaded(family, "float64"), problems(family), plan, max_new_tokens=TOKENS, progress=False)


class Plain:
    """One host's run, every step the whole sequence again, in the model's own type throughout."""

    def __init__(self, family: str) -> None:
        self.model = loaded(family, "float64")
        self.thoughts = collect_thoughts(self.model, problems(family), max_new_tokens=TOKENS, progress=False)

    def forward(self, embeds: Tensor) -> Tensor:
        n = embeds.shape[0]
        mask = torch.full((n, n), -torch.inf, dtype=embeds.dtype).triu(1)[None, None]
        return self.model.forward(embeds[None], torch.arange(n)[None], mask)[0]

    def words(self, ids: list[int]) -> Tensor:
        return self.model.embed(torch.tensor(ids))

    def thinks(self, question: str, put: dict[int, Tensor]) -> Tensor:
        """The sequence up to the last thought, slot k of which is fed `put[k]` if there."""
        embeds = self.words(list(self.model.prompt(question).ids))
        for k in range(K):
            state = self.forward(embeds)[-1]
            fed = put[k] if k in put else self.model.project(state[None], k)[0]
            embeds = torch.cat([embeds, fed[None]])
        return embeds

    def logp(self, embeds: Tensor, words: list[int]) -> Tensor:
        """Log-probabilities of every token after each of `words` [words, V], which follow end-of-thought."""
        whole = torch.cat([embeds, self.words([self.model.end_of_thought, *words])])
        return self.model.unembed(self.forward(whole)[len(embeds) :]).log_softmax(-1)


@functools.cache
def plain(family: str) -> Plain:
    return Plain(family)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_a_float64_model_are_those_of_a_plain_float64_run(family: str) -> None:
    own, asked, compared = plain(family), problems(family), 0
    fed, model = own.thoughts.fed, own.model
    for row in records(family).to_dict("records"):
        host = int(row["problem_id"])
        donor = None if pd.isna(row["donor_id"]) else int(row["donor_id"])
        put = {k: torch.zeros_like(fed[0, 0]) if donor is None else fed[donor, k] for k in row["slots"]}
        draft = make_draft(model, own.thoughts.token_ids[host], own.thoughts.stopped[host], asked[host].gold, NUMBER)
        if row["slots"]:
            first = put[row["slots"][0]]
            assert row["fed_norm"] == pytest.approx(float((first**2).sum() ** 0.5), abs=1e-9)
        if donor is not None:
            mine = fed[host, row["slots"][0]]
            cosine = (first @ mine) / ((first @ first) ** 0.5 * (mine @ mine) ** 0.5)
            assert row["donor_cos"] == pytest.approx(float(cosine), abs=1e-9)
        at = draft.number_at
        if at is None:
            assert all(pd.isna(row[name]) for name in ("kl", "logp_gold", "logp_donor", "dlogp_gold"))
            continue
        edited, clean = own.thinks(asked[host].question, put), own.thinks(asked[host].question, {})
        before = list(draft.ids[:at])

        def score(embeds: Tensor, tail: tuple[int, ...], before: list[int] = before) -> float:
            logp = own.logp(embeds, [*before, *tail[:-1]])[len(before) :]
            return float(sum(logp[i, token] for i, token in enumerate(tail)))

        here, there = own.logp(edited, before)[-1], own.logp(clean, before)[-1]
        assert row["kl"] == pytest.approx(float((there.exp() * (there - here)).sum()), abs=1e-9)
        assert row["logp_gold"] == pytest.approx(score(edited, draft.gold), abs=1e-9)
        assert row["dlogp_gold"] == pytest.approx(score(edited, draft.gold) - score(clean, draft.gold), abs=1e-9)
        if donor is not None and own.thoughts.pred[donor] is not None:
            tail = answer_tail(model, own.thoughts.token_ids[host], at, own.thoughts.pred[donor], NUMBER)
            assert row["logp_donor"] == pytest.approx(score(edited, tail), abs=1e-9)
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_no_figure_is_narrower_than_float32_or_than_the_model(dtype: str) -> None:
    model, wide = tiny("codi-llama", dtype, max_new_tokens=4), torch.float64 if dtype == "float64" else torch.float32
    asked = problems("codi-llama")
    prompts = [model.prompt(p.question) for p in asked]
    thoughts = collect_thoughts(model, asked, progress=False)
    drafts = [
        make_draft(model, thoughts.token_ids[i], thoughts.stopped[i], p.gold, NUMBER) for i, p in enumerate(asked)
    ]
    cases = [Case(Arm("swap", (k,)), k % 5, (k + 1) % 5) for k in range(K)]
    found = run_cases(model, prompts, cases, Source.from_fed(thoughts.fed), drafts=drafts)
    assert found.scores is not None
    scores = (found.scores.kl, found.scores.logp_gold, found.scores.logp_donor, found.scores.clean_logp_gold)
    assert {x.dtype for x in (*scores, found.edit_norm, found.edit_cosine)} == {wide}
    kept = run(model, asked, Plan((Arm("baseline"),)), keep_logits=True, progress=False)["first_logits"]
    assert {x.dtype for x in map(torch.from_numpy, kept)} == {wide}
