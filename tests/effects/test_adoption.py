"""Adoption: the closed-form null against real permutations, planted adoption recovered, none invented."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from tests.effects.invent import make_records

from thoughtgraft.effects.counterfactual import counterfactual_table
from thoughtgraft.effects.frame import Cells, Frame, build_frame
from thoughtgraft.effects.positions import adoption, adoption_bounds, donor_answers
from thoughtgraft.records.schema import Family
from thoughtgraft.tasks.problem import Problem, Ref, Step


def arm(frame: Frame, slot: int = 0) -> Cells:
    return frame.arms[Family("swap", donors="random").at((slot,))]


def test_null_equals_the_mean_of_permutations() -> None:
    """4,000 permutations of donors over hosts (own pairs left out), seed 0, against the closed form."""
    records = make_records(15, 4, loss={(0,): 0.7}, adopt=0.4, seed=2)
    # Few distinct answers, so that answers often agree by chance.
    squeeze = lambda text: None if text is None else str(int(text) % 7)  # noqa: E731
    for name in ("pred", "base_pred", "donor_pred", "gold"):
        records[name] = records[name].map(squeeze, na_action="ignore")
    frame = build_frame(records)
    cells = arm(frame)
    found = adoption(cells, donor_answers(cells, len(frame.hosts), len(frame.donors)))
    rng = np.random.default_rng(0)
    hits = pairs = 0
    for _ in range(4_000):
        order = rng.permutation(len(cells))
        other = cells.host[order] != cells.host
        given = cells.donor_pred[order]
        eligible = other & (given != cells.base_pred) & (given != cells.gold)
        hits += int((eligible & (given == cells.pred)).sum())
        pairs += int(eligible.sum())
    assert found.null == pytest.approx(hits / pairs, abs=0.004)
    own = (cells.donor_pred != cells.base_pred) & (cells.donor_pred != cells.gold)
    assert found.rate == pytest.approx((own & (cells.pred == cells.donor_pred)).sum() / own.sum())
    assert found.n_eligible == own.sum()


def test_planted_adoption_is_recovered() -> None:
    frame = build_frame(make_records(60, 8, loss={(0,): 0.5, (1,): 0.5}, adopt=0.6, seed=3))
    found = adoption(arm(frame), donor_answers(arm(frame), len(frame.hosts), len(frame.donors)))
    bounds = adoption_bounds([found])[0]
    assert bounds.low < 0.3 < bounds.high
    assert bounds.estimate.value == pytest.approx(found.rate - found.null)


def test_no_adoption_is_not_found() -> None:
    """Answers lost to a common default are matched by chance alone: 200 runs of 30 x 5, seeds 0-199."""
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        records = make_records(30, 5, loss={(0,): 0.8}, seed=seed)
        lost = records.changed.to_numpy()
        records.loc[lost, "pred"] = [str(v) for v in rng.integers(1, 60, int(lost.sum()))]
        frame = build_frame(records)
        excess = adoption_bounds([adoption(arm(frame), donor_answers(arm(frame), 30, len(frame.donors)))])[0]
        wrong += excess.low > 0
    assert wrong <= 10


def test_where_none_adopted_the_upper_end_is_exact() -> None:
    """Variances then see the null's error only; 20 hosts and donors cannot exclude an adoption of 5%."""
    records = make_records(20, 5, loss={(0,): 0.3}, adopt=0.0, seed=1)
    swaps = records.method == "swap"
    records.loc[swaps & (records.pred == records.donor_pred), "pred"] = "-1"
    frame = build_frame(records)
    cells = arm(frame)
    found = adoption(cells, donor_answers(cells, len(frame.hosts), len(frame.donors)))
    assert found.rate == 0
    excess = adoption_bounds([found])[0]
    bound = 1 - 0.05 ** (1 / min(len(np.unique(cells.host)), len(np.unique(cells.donor))))
    assert excess.high == pytest.approx(bound - found.null) and excess.high > 0.05
    assert excess.note == "none adopted: exact bounds" and excess.method == "exact"
    assert excess.estimate.p == 1 and excess.low <= 0


def test_same_answer_donors_leave_it_undefined() -> None:
    records = make_records(10, 3, loss={(0,): 0.2}, base_acc=1.0)
    for name in ("gold", "base_pred"):
        records[name] = "7"
    records.loc[records.donor_pred.notna(), "donor_pred"] = "7"
    frame = build_frame(records)
    found = adoption(arm(frame), donor_answers(arm(frame), 10, len(frame.donors)))
    excess = adoption_bounds([found])[0]
    assert found.n_eligible == 0 and np.isnan(found.rate) and excess.note == "no eligible donor answer"
    assert np.isnan(excess.sim_low)


@pytest.mark.parametrize("own", ["gold", "base_pred"])
def test_a_donors_answer_that_is_the_hosts_gold_or_own_shows_nothing(own: str) -> None:
    """All donors say 7 and so do all edited hosts; for half of them 7 is the gold answer (or the clean one)."""
    records = make_records(30, 5, loss={(0,): 0.0}, base_acc=0.0, seed=3)
    half = records.problem_id < "p015"
    swaps = records.method == "swap"
    records["gold"], records["base_pred"] = "8", "9"
    records.loc[half, own] = "7"
    records.loc[swaps, ["donor_pred", "pred"]] = "7"
    records["correct"], records["base_correct"] = records.pred == records.gold, records.base_pred == records.gold
    frame = build_frame(records)
    cells = arm(frame)
    found = adoption(cells, donor_answers(cells, len(frame.hosts), len(frame.donors)))
    assert found.n_eligible == (swaps & ~half).sum() and found.rate == found.null == 1


def two_step(index: int) -> Problem:
    a, b, c = Fraction(index + 2), Fraction(3), Fraction(index % 5 + 4)
    steps = (Step(a, "*", b, a * b), Step(Ref(0), "+", c, a * b + c))
    return Problem(f"p{index:03d}", f"question {index}", a * b + c, steps=steps)


def test_counterfactual_adoption_finds_which_slot_holds_which_step() -> None:
    """Slot 0 carries step 0 in 60% of swaps; slot 1 carries nothing."""
    problems = [two_step(i) for i in range(40)]
    records = make_records(40, 5, loss={(0,): 0.0, (1,): 0.0}, base_acc=1.0, seed=1)
    rng = np.random.default_rng(0)
    records["gold"] = [problems[int(p[1:])].gold for p in records.problem_id]
    records["base_pred"] = records["gold"]
    records["donor_pred"] = [None if pd.isna(d) else problems[int(d[1:])].gold for d in records.donor_id]
    preds = []
    for r in records.itertuples():
        host = problems[int(r.problem_id[1:])]
        if r.method == "swap" and r.slots == [0] and rng.random() < 0.6:
            preds.append(str(host.answer_with(0, problems[int(r.donor_id[1:])].steps[0].value).value))
        else:
            preds.append(r.gold)
    records["pred"] = preds
    records["changed"] = records.pred != records.base_pred
    records["correct"] = records.pred == records.gold
    table = counterfactual_table(records, problems).set_index(["label", "step"])
    found = table.loc[("CT0", 0)]
    assert found.ci_low < 0.6 < found.ci_high + found.null and found.p_holm < 1e-6 and found.verdict == "ABOVE"
    assert found.sim_low < found.ci_low
    assert table.loc[("CT1", 0)].rate == 0 and table.loc[("CT1", 0)].verdict in ("NEGLIGIBLE", "UNRESOLVED")
    counts = [name for name in table.columns if name.startswith("n_") and name not in ("n_hosts", "n_donors", "n_gen")]
    assert (table[counts].sum(axis=1) == table.n_gen).all()
    limited = counterfactual_table(records, problems, largest=50).set_index(["label", "step"])
    assert limited.loc[("CT0", 0)].n_outside_vocabulary > 0
    assert counterfactual_table(records, []).empty
