"""The rule: gates with their evidence, pilot verdicts, the questions' verdicts, and false ones under a null."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.effects.invent import make_records

from thoughtgraft.effects.decision import claim_table, decide
from thoughtgraft.effects.frame import build_frame
from thoughtgraft.effects.gates import RULE, Known, Rule
from thoughtgraft.effects.positions import position_table
from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.intervals import TOO_SMALL
from thoughtgraft.stats.verdicts import Verdict, verdict
from thoughtgraft.studies.sample import from_pilot

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
    assert Rule(margin=0.04).hash != RULE.hash != Rule(alpha=0.01).hash
    assert Rule.of(margin_pp=7).hash == Rule(margin=0.07).hash and Rule.of(7.0).margin_pp == 7
    assert Rule.of() == RULE and Rule.of(alpha=0.1).level == "90%"
    assert [claim.name for claim in RULE.claims] == ["H0", "H1", "H3", "H4", "H5"]
    for claim in RULE.claims:
        assert RULE.margin_words(claim) in RULE.question(claim)


@pytest.mark.parametrize(("given", "words"), [({"margin": 0.0}, "margin"), ({"margin": 0.6}, "margin"),
                                              ({"alpha": 0.5}, "alpha"), ({"alpha": 0.0}, "alpha")])  # fmt: skip
def test_a_rule_without_sense_is_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        Rule(**given)


def test_claims_follow_the_planted_truth(records: pd.DataFrame) -> None:
    found = decide(records, known=Known(EXTERNAL))
    assert found.valid and found.not_run == () and found.rule_hash == RULE.hash
    said = verdicts(found.claims)
    assert said[("H0", "all")] == said[("H1", "CT1")] == said[("H4", "CT1")] == said[("H4", "all")] == "ABOVE"
    assert said[("H1", "CT0")] == said[("H4", "CT0")] == "NEGLIGIBLE"
    assert said[("H1", "CT2")] in ("PRESENT", "ABOVE")
    assert (found.claims[["question", "says", "estimand", "family"]] != "").all().all()


def test_every_claim_is_the_verdict_of_its_own_row_and_of_its_own_table(records: pd.DataFrame) -> None:
    """One estimate has one verdict, wherever it stands."""
    for rule in (RULE, Rule.of(margin_pp=20, alpha=0.1)):
        positions = position_table(records, known=Known(rule=rule)).set_index(["method", "label"])
        claims = decide(records, known=Known(EXTERNAL, rule=rule)).claims
        for row in claims.itertuples():
            assert verdict(row.sim_low, row.sim_high, row.margin) == row.verdict
            assert Verdict(row.verdict).says(f"{rule.margin_pp:g} pp") == row.says
            own = {"H0": "", "H1": "impact_given_correct_", "H4": "adoption_excess_"}[row.claim]
            assert positions.loc[("swap", row.subject), f"{own}verdict"] == row.verdict


def test_a_design_too_small_says_so_in_the_place_of_words_that_its_interval_would_belie() -> None:
    claims = decide(make_records(12, 4, loss=LOSS, adopt=0.5, host_sd=0.02, seed=9), known=Known(EXTERNAL)).claims
    judged = claims[claims.claim.isin(["H0", "H1", "H4"])]
    assert set(judged.verdict) == {"UNRESOLVED"} and (judged.sim_low > judged.margin).any()
    assert set(judged.says) == {TOO_SMALL}


def test_all_slots_are_no_member_of_the_single_slots_family(records: pd.DataFrame) -> None:
    """H4: taken into the family of the single slots, all slots would have a wider interval and a larger p."""
    claims = decide(records).claims.set_index(["claim", "subject"])
    for name in ("H0", "H4"):
        whole = claims.loc[(name, "all")]
        assert (whole.sim_low, whole.sim_high) == (whole.ci_low, whole.ci_high)
    alone = decide(records[records.slots.map(len) < 3]).claims.set_index(["claim", "subject"])
    for slot in ("CT0", "CT1", "CT2"):
        assert alone.loc[("H4", slot)].sim_high == claims.loc[("H4", slot)].sim_high
        assert alone.loc[("H4", slot)].sim_high > alone.loc[("H4", slot)].ci_high
        assert alone.loc[("H4", slot)].p_holm == claims.loc[("H4", slot)].p_holm


def test_dead_slots_are_answered_by_construction(records: pd.DataFrame) -> None:
    said = verdicts(decide(records, known=Known(dead_slots=(0,))).claims)
    assert said[("H1", "CT0")] == said[("H4", "CT0")] == "BY CONSTRUCTION"
    shared = decide(records, known=Known(shared_slots=(0, 1, 2))).claims
    assert set(shared[shared.claim.isin(["H0", "H1", "H4"])].verdict) == {"BY CONSTRUCTION"}


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
    found = decide(broken(records, gate), known=Known(EXTERNAL))
    outcome = found.gate_table.set_index("name").outcome
    assert outcome[gate] == "fail" and (outcome.drop(gate) == "pass").all()
    assert not found.valid and found.pilot.verdict == "INVALID" and gate in found.pilot.reason
    assert (found.claims.verdict == "INVALID").all() and found.claims.estimate.isna().all()


def test_dead_slots_are_not_asked_to_bite(records: pd.DataFrame) -> None:
    still = records.copy()
    still.loc[(still.method == "swap") & (still.slots.map(tuple) == (0,)), ["kl", "dlogp_gold"]] = 0.0
    assert not decide(still).valid
    assert decide(still, known=Known(dead_slots=(0,))).valid


def test_failed_certificate_invalidates(records: pd.DataFrame) -> None:
    assert not decide(records, known=Known({"certificate": False})).valid


def test_pilot_verdict_depends_on_variance_and_supply_only() -> None:
    pilot = make_records(20, 5, loss={(k,): 0.3 for k in range(3)}, seed=4)
    go = decide(pilot, known=Known(available_hosts=2_000)).pilot
    assert go.verdict == "GO" and go.needed is not None and 20 < go.needed < 2_000
    assert "conditional on gates not run" in go.reason
    no = decide(pilot, known=Known(available_hosts=go.needed - 1)).pilot
    assert no.verdict == "NO-GO" and str(go.needed) in no.reason
    assert decide(pilot).pilot.verdict == "NO-GO" and "not given" in decide(pilot).pilot.reason
    flipped = pilot.copy()
    swaps = flipped.method == "swap"
    flipped.loc[swaps, "correct"] = ~flipped.loc[swaps, "correct"].astype(bool)
    flipped["correct"] = flipped["correct"].astype(bool)
    flipped["base_correct"] = ~flipped["base_correct"].astype(bool)
    assert decide(flipped, known=Known(available_hosts=2_000)).pilot.needed == go.needed


def test_a_pilot_asks_for_the_hosts_and_names_the_effects_of_the_rules_own_alpha() -> None:
    pilot = make_records(20, 5, loss={(k,): 0.3 for k in range(3)}, seed=4)
    usual, strict = (
        decide(pilot, known=Known(available_hosts=2_000, rule=Rule.of(alpha=alpha))).pilot for alpha in (0.05, 0.01)
    )
    assert usual.needed is not None and strict.needed is not None and strict.needed > 1.3 * usual.needed
    asked = from_pilot(pilot, 100, RULE.full_draws, Rule.of(alpha=0.01))
    assert asked.needed == strict.needed
    first, second = (
        position_table(pilot, resamples=9, known=Known(rule=Rule.of(alpha=alpha))).mde80_pp for alpha in (0.05, 0.01)
    )
    assert (second[first.notna()] > 1.2 * first[first.notna()]).all()


def test_a_pilot_without_a_change_bounds_an_effect_and_shows_none_absent() -> None:
    still = make_records(20, 5, loss={(0,): 0.0})
    few, enough = (decide(still, known=Known(available_hosts=n)).pilot for n in (58, 59))
    assert (few.verdict, enough.verdict, enough.needed, enough.worst_slot) == ("NO-GO", "GO", 59, "")
    assert 1 - 0.05 ** (1 / 59) < 0.05 < 1 - 0.05 ** (1 / 58)


def test_one_host_or_donor_is_no_evidence_for_a_pilot() -> None:
    for still in (make_records(1, 1, loss={(0,): 0.0}), make_records(6, 1, loss={(0,): 0.0}, seed=2)):
        few = still[still.donor_id.isna() | (still.donor_id == still.donor_id.dropna().iloc[0])]
        verdict = decide(few, known=Known(available_hosts=1_000)).pilot
        assert verdict.verdict == "NO-GO" and "one host or one donor" in verdict.reason


def test_a_pilot_of_slots_that_carry_nothing_is_no_go() -> None:
    alike = decide(make_records(20, 5, loss={(0,): 0.0}), known=Known(available_hosts=1_000, shared_slots=(0,))).pilot
    assert alike.verdict == "NO-GO" and alike.needed is None and "can have an effect" in alike.reason


def test_false_claims_under_a_null_model() -> None:
    """200 null runs of 24 hosts x 5 donors x 3 slots, seeds 0-199.

    Edits re-roll one answer in five, to right or wrong alike: impacts and excesses are 0, and every verdict that gives
    them a direction or at least the margin is false. At most 6% of runs may say one (binomial test).
    """
    wrong = dict.fromkeys(("H0", "impact", "H4"), 0)
    slots = {(0,): 0.0, (1,): 0.0, (2,): 0.0, (0, 1, 2): 0.0}
    for seed in range(200):
        records = make_records(24, 5, loss=slots, base_acc=0.5, seed=seed)
        rng = np.random.default_rng(seed)
        edited = (records.method == "swap") & (rng.random(len(records)) < 0.2)
        right = edited & (rng.random(len(records)) < 0.5)
        records.loc[edited & ~right, "pred"] = [str(v) for v in rng.integers(60, 120, int((edited & ~right).sum()))]
        records.loc[right, "pred"] = records.loc[right, "gold"]
        records["correct"] = records.pred == records.gold
        records["changed"] = records.pred != records.base_pred
        frame = build_frame(records[records.method == "swap"])
        positions = position_table(frame, resamples=19)
        claims = claim_table(frame, positions, pd.DataFrame(), pd.DataFrame(columns=["slots"]))
        said = {"impact": positions[positions.label != "all"].verdict}
        said |= {name: claims[claims.claim == name].verdict for name in ("H0", "H4")}
        for name in wrong:
            wrong[name] += any(not Verdict(word).holds(0.0, 5.0) for word in said[name])
    for name, count in wrong.items():
        assert stats.binomtest(count, 200, 0.06, alternative="greater").pvalue > 0.01, (name, count)
