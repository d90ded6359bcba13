"""The frozen rule: gates with their evidence, pilot verdicts, claims, and the rate of false claims under a null."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.analysis.invent import make_records

from thoughtgraft.analysis.claims import claim_table
from thoughtgraft.analysis.decision import decide
from thoughtgraft.analysis.estimate import position_table
from thoughtgraft.analysis.frame import build_frame
from thoughtgraft.analysis.rule import RULE, Rule

LOSS = {(0,): 0.0, (1,): 0.5, (2,): 0.06, tuple(range(3)): 0.8}
EXTERNAL = {"certificate": True, "transplant": True}


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return make_records(100, 10, loss=LOSS, adopt=0.5, host_sd=0.02, seed=9)


def verdicts(claims: pd.DataFrame) -> dict[tuple[str, str], str]:
    return dict(zip(zip(claims.claim, claims.subject, strict=True), claims.verdict, strict=True))


def test_rule_is_data_with_a_hash() -> None:
    assert json.loads(RULE.to_json())["margin"] == 0.05
    assert RULE.hash == Rule().hash and len(RULE.hash) == 16
    assert Rule(margin=0.04).hash != RULE.hash


def test_claims_follow_the_planted_truth(records: pd.DataFrame) -> None:
    found = decide(records, certificate=EXTERNAL)
    assert found.valid and found.not_run == () and found.rule_hash == RULE.hash
    said = verdicts(found.claims)
    assert said[("H0", "all")] == "SUPPORTED"
    assert said[("H1", "CT1")] == "SUPPORTED" and said[("H1", "CT0")] == "REFUTED"
    assert said[("H2", "CT0")] == "SUPPORTED" and said[("H2", "CT1")] == "REFUTED"
    assert said[("H4", "CT1")] == "SUPPORTED" and said[("H4", "all")] == "SUPPORTED"
    assert said[("H4", "CT0")] != "SUPPORTED"
    assert (found.claims[["supported_if", "refuted_if", "statement"]] != "").all().all()


def test_gates_without_evidence_are_not_run(records: pd.DataFrame) -> None:
    found = decide(records)
    assert found.valid and found.not_run == ("certificate", "transplant")
    bare = records[~records.method.isin(["self", "noop", "baseline"])].drop(columns=["kl", "dlogp_gold"])
    gates = decide(bare).gate_table.set_index("name").outcome
    assert gates.to_dict() == {
        "certificate": "not run", "self_null": "not run", "noop": "not run", "edits_bite": "not run",
        "transplant": "not run", "invalid": "not run", "failed": "pass", "duplicates": "pass",
    }  # fmt: skip
    partial = records[~((records.method == "self") & (records.slots.map(tuple) == (1,)))]
    gate = decide(partial).gate_table.set_index("name").loc["self_null"]
    assert gate.outcome == "not run" and "CT1" in gate.detail


def broken(records: pd.DataFrame, what: str) -> pd.DataFrame:
    bad = records.copy()
    swaps = (bad.method == "swap") & (bad.slots.map(tuple) == (0,))
    if what == "self_null":
        bad.loc[bad.index[bad.method == "self"][0], "changed"] = True
    elif what == "noop":
        bad.loc[bad.index[bad.method == "noop"][0], "changed"] = True
    elif what == "edits_bite":
        bad.loc[bad.index[swaps][:100], ["kl", "dlogp_gold"]] = 0.0
    elif what == "invalid":
        bad.loc[bad.index[bad.method == "baseline"][:20], "valid"] = False
    else:
        bad = pd.concat([bad, bad[swaps].iloc[:1]])
    return bad


@pytest.mark.parametrize("gate", ["self_null", "noop", "edits_bite", "invalid", "duplicates"])
def test_each_failing_gate_silences_the_run(records: pd.DataFrame, gate: str) -> None:
    found = decide(broken(records, gate), certificate=EXTERNAL)
    outcome = found.gate_table.set_index("name").outcome
    assert outcome[gate] == "fail" and (outcome.drop(gate) == "pass").all()
    assert not found.valid and found.pilot.verdict == "INVALID" and gate in found.pilot.reason
    assert (found.claims.verdict == "INVALID").all() and found.claims.estimate.isna().all()


def test_dead_slots_are_not_asked_to_bite(records: pd.DataFrame) -> None:
    still = records.copy()
    still.loc[(still.method == "swap") & (still.slots.map(tuple) == (0,)), ["kl", "dlogp_gold"]] = 0.0
    assert not decide(still).valid
    assert decide(still, dead_slots=(0,)).valid


def test_failed_certificate_invalidates(records: pd.DataFrame) -> None:
    assert not decide(records, certificate={"certificate": False}).valid


def test_pilot_verdict_depends_on_variance_and_supply_only() -> None:
    pilot = make_records(20, 5, loss={(k,): 0.3 for k in range(3)}, seed=4)
    go = decide(pilot, available_hosts=2_000).pilot
    assert go.verdict == "GO" and go.needed is not None and 20 < go.needed < 2_000
    assert "conditional on gates not run" in go.reason
    no = decide(pilot, available_hosts=go.needed - 1).pilot
    assert no.verdict == "NO-GO" and str(go.needed) in no.reason
    assert decide(pilot).pilot.verdict == "NO-GO" and "not given" in decide(pilot).pilot.reason
    flipped = pilot.copy()
    swaps = flipped.method == "swap"
    flipped.loc[swaps, "correct"] = ~flipped.loc[swaps, "correct"].astype(bool)
    flipped["correct"] = flipped["correct"].astype(bool)
    flipped["base_correct"] = ~flipped["base_correct"].astype(bool)
    assert decide(flipped, available_hosts=2_000).pilot.needed == go.needed


def test_a_pilot_without_a_change_bounds_an_effect_and_shows_none_absent() -> None:
    still = make_records(20, 5, loss={(0,): 0.0})
    few, enough = (decide(still, available_hosts=n).pilot for n in (58, 59))
    assert (few.verdict, enough.verdict, enough.needed, enough.worst_slot) == ("NO-GO", "GO", 59, "")
    assert 1 - 0.05 ** (1 / 59) < 0.05 < 1 - 0.05 ** (1 / 58)


def test_one_host_or_donor_is_no_evidence_for_a_pilot() -> None:
    for still in (make_records(1, 1, loss={(0,): 0.0}), make_records(6, 1, loss={(0,): 0.0}, seed=2)):
        few = still[still.donor_id.isna() | (still.donor_id == still.donor_id.dropna().iloc[0])]
        verdict = decide(few, available_hosts=1_000).pilot
        assert verdict.verdict == "NO-GO" and "one host or one donor" in verdict.reason


def test_a_pilot_of_slots_that_carry_nothing_is_no_go() -> None:
    alike = decide(make_records(20, 5, loss={(0,): 0.0}), available_hosts=1_000, shared_slots=(0,)).pilot
    assert alike.verdict == "NO-GO" and alike.needed is None and "can have an effect" in alike.reason


def test_false_claims_under_a_null_model() -> None:
    """200 null runs of 24 hosts x 4 donors x 3 slots, seeds 0-199.

    Edits re-roll one answer in five, to right or wrong alike. H0, H1 and H4 are false in all runs; each family's rate
    of false support is at most 5% (binomial test). H2 is true here, so that it cannot be claimed falsely.
    """
    wrong = dict.fromkeys(("H0", "H1", "H4"), 0)
    empty = pd.DataFrame()
    slots = {(0,): 0.0, (1,): 0.0, (2,): 0.0, (0, 1, 2): 0.0}
    for seed in range(200):
        records = make_records(24, 4, loss=slots, base_acc=0.5, seed=seed)
        rng = np.random.default_rng(seed)
        edited = (records.method == "swap") & (rng.random(len(records)) < 0.2)
        right = edited & (rng.random(len(records)) < 0.5)
        records.loc[edited & ~right, "pred"] = [str(v) for v in rng.integers(60, 120, int((edited & ~right).sum()))]
        records.loc[right, "pred"] = records.loc[right, "gold"]
        records["correct"] = records.pred == records.gold
        records["changed"] = records.pred != records.base_pred
        frame = build_frame(records[records.method == "swap"])
        claims = claim_table(frame, position_table(frame, resamples=19), empty)
        for name in wrong:
            part = claims[claims.claim == name]
            part = part[part.subject != "all"] if name == "H4" else part
            wrong[name] += bool((part.verdict == "SUPPORTED").any())
    for name, count in wrong.items():
        assert stats.binomtest(count, 200, 0.05, alternative="greater").pvalue > 0.01, (name, count)
