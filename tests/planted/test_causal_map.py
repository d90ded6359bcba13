"""A model whose causal map is known, through the real engine: the study recovers the map, to the last cell."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from tests.planted.reasoner import Planted, planted_problems, said

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.effects.gates import Known
from thoughtgraft.engine.run import run
from thoughtgraft.studies.resampling.analysis import Analysis, analyse
from thoughtgraft.tasks.problem import ProblemSet

HOSTS, DONORS, SLOTS = 110, 4, 5
READS, LEAKS, DEAD = 2, (0, 1), (3, 4)
FREEZES = ("freeze_input", "freeze_kv")


def plan(methods: tuple[str, ...], frozen: bool) -> Plan:
    every = tuple(range(SLOTS))
    arms = [Arm("baseline"), Arm("noop"), Arm("swap", every)]
    arms += [Arm(method, (k,)) for method in methods for k in every]
    arms += [Arm("swap", (k,), freeze) for freeze in FREEZES * frozen for k in every]
    return Plan(tuple(arms), n_donors=DONORS)


@functools.cache
def own() -> tuple[ProblemSet, pd.DataFrame, Analysis]:
    problems = planted_problems(HOSTS)
    records = run(
        Planted("own", reads=READS, leaks=LEAKS), problems, plan(("self", "swap", "mean"), False), progress=False
    )
    return problems, records, analyse(records, problems, known=Known(dead_slots=DEAD))


@functools.cache
def relay() -> tuple[pd.DataFrame, Analysis]:
    problems = planted_problems(40)
    records = run(Planted("relay", reads=SLOTS - 1, leaks=()), problems, plan(("self", "swap"), True), progress=False)
    return records, analyse(records, problems)


def rows(analysis: Analysis, method: str = "swap", downstream: str = "recompute") -> pd.DataFrame:
    table = analysis.positions
    return table[(table.method == method) & (table.downstream == downstream)].set_index("label")


def losses(problems: ProblemSet, records: pd.DataFrame) -> float:
    """What replacing the answer by the donor's must cost, pp, from the questions alone."""
    swaps = records[(records.method == "swap") & records.slots.map(lambda slots: list(slots) == [READS])]
    lost = [
        (str(said(problems.by_id(host))) == problems.by_id(host).gold)
        - (str(said(problems.by_id(donor))) == problems.by_id(host).gold)
        for host, donor in zip(swaps.problem_id, swaps.donor_id, strict=True)
    ]
    return 100 * sum(map(int, lost)) / len(lost)


def test_the_model_says_what_its_question_asks() -> None:
    problems, records, _ = own()
    base = records[records.method == "baseline"].set_index("problem_id")
    assert all(int(base.pred[p.id]) == said(p) for p in problems)
    assert 0.8 < base.correct.mean() < 0.9, "some golds are wrong on purpose"


def test_impact_and_adoption_stand_at_the_slot_that_carries_the_answer() -> None:
    problems, records, analysis = own()
    table = rows(analysis)
    for slots in (f"CT{READS}", "all"):
        row = table.loc[slots]
        assert row.impact_pp == pytest.approx(losses(problems, records), abs=1e-9)
        assert row.ci_low < row.impact_pp < row.ci_high
        assert row.adoption_rate == 1.0
        assert row.adoption_excess_ci_low > 0.9
        assert row.verdict == row.impact_given_correct_verdict == row.adoption_excess_verdict == "ABOVE"


def test_inert_slots_are_bounded_exactly_and_called_negligible() -> None:
    table = rows(own()[2])
    for slot in LEAKS:
        row = table.loc[f"CT{slot}"]
        units = min(row.n_hosts, row.n_donors)
        assert row.impact_pp == row.lost == row.gained == row.changed_rate == 0
        assert row.zero_bound_pp == row.ci_high == pytest.approx(100 * (1 - 0.05 ** (1 / units)))
        assert row.ci_high < row.sim_high < 5
        assert row.kl > 0, "it is read, and moves the logits"
        assert row.verdict == row.impact_given_correct_verdict == "NEGLIGIBLE"
        assert row.adoption_rate == 0


def test_slots_that_nothing_reads_are_0_by_construction() -> None:
    table = rows(own()[2])
    for slot in DEAD:
        row = table.loc[f"CT{slot}"]
        assert row.verdict == "BY CONSTRUCTION"
        assert np.isnan([row.impact_pp, row.kl, row.p]).all(), "what is 0 by construction is no estimate"


def test_the_claims_are_the_truth() -> None:
    decision = own()[2].decision
    assert decision.valid, decision.gate_table
    verdict = decision.claims.set_index(["claim", "subject"]).verdict
    assert verdict["H0", "all"] == "ABOVE"
    for slot in range(SLOTS):
        true = "ABOVE" if slot == READS else "BY CONSTRUCTION" if slot in DEAD else "NEGLIGIBLE"
        assert verdict["H1", f"CT{slot}"] == verdict["H4", f"CT{slot}"] == true
    assert verdict["H3", "swap and mean"] in ("SAME PROFILE", "SAME ORDER, OTHER SIZES"), "both see the same map"


def test_a_relayed_answer_is_mediated_by_the_thoughts_that_follow() -> None:
    records, analysis = relay()
    assert (rows(analysis).loc[[f"CT{k}" for k in range(SLOTS)], "adoption_rate"] == 1.0).all()
    table = analysis.mediation[analysis.mediation.method == "swap"].set_index(["label", "freeze"])
    for freeze in FREEZES:
        for slot in range(SLOTS - 1):
            row = table.loc[f"CT{slot}", freeze]
            assert row.total_pp > 50
            assert row.direct_pp == 0
            assert row.indirect_pp == pytest.approx(row.total_pp)
            assert row.indirect_low > 50
        last = table.loc[f"CT{SLOTS - 1}", freeze]
        assert last.direct_pp == last.total_pp > 50
        assert last.by_construction
    assert (records.error.isna()).all()
