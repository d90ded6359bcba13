"""The erasure table on invented records whose true effect is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from thoughtgraft.effects.gates import Rule
from thoughtgraft.errors import AnalysisError, PlanError
from thoughtgraft.stats.verdicts import Verdict, verdict
from thoughtgraft.studies.erasure.analysis import Reading, erasure_table
from thoughtgraft.studies.erasure.measure import halves, slot_sets
from thoughtgraft.studies.erasure.report import sentences, short_rows, tables

DRAWS, HOSTS = 20, 80
READING = Reading(0.9, 0.34, 0.88, 1 / 3, 0.2, 0.21)


def invented(losses: dict[tuple[int, tuple[int, ...]], tuple[float, float]], seed: int = 0) -> tuple[Any, Any, Any]:
    """Records, draws and readings; by cell, how often the erasure and a random edit cost the answer."""
    rng, rows, draws = np.random.default_rng(seed), [], {}
    for (layer, slots), (own, random) in losses.items():
        for draw in (None, *range(DRAWS)):
            name = "erase" if draw is None else f"random {draw}"
            draws[name] = draw
            lost = rng.random(HOSTS) < (own if draw is None else random)
            rows += [
                {"method": name, "slots": list(slots), "site_layer": layer, "problem_id": f"p{i}", "base_correct": True}
                | {"correct": not lost[i], "changed": bool(lost[i])}
                for i in range(HOSTS)
            ]
    rows.append({"method": "baseline", "slots": [], "problem_id": "p0", "base_correct": True, "correct": True})
    return pd.DataFrame(rows), draws, dict.fromkeys(losses, READING)


def table(losses: dict[tuple[int, tuple[int, ...]], tuple[float, float]], seed: int = 0) -> pd.DataFrame:
    records, draws, readings = invented(losses, seed)
    return erasure_table(records, draws, readings, depth=4, num_latents=6)


def test_a_planted_effect_is_found_and_its_absence_is_not() -> None:
    found = table({(0, (1,)): (0.6, 0.1), (1, (1,)): (0.3, 0.3), (2, (1,)): (0.05, 0.6), (3, (5,)): (0.0, 0.0)})
    assert list(found["verdict"]) == ["ABOVE", "UNRESOLVED", "OPPOSITE", "BY CONSTRUCTION"]
    row = found.iloc[0]
    assert (row["n"], row["draws"], row["layer"], row["slots"]) == (HOSTS, DRAWS, 0, [1])
    assert row["difference_pp"] == pytest.approx(row["impact_pp"] - row["random_impact_pp"])
    assert row["ci_low"] < 50 < row["ci_high"]
    assert row["p_draws"] == pytest.approx(1 / (DRAWS + 1))
    assert row["changed"] == pytest.approx(row["impact_pp"] / 100)
    assert found["p_holm"].isna().tolist() == [False, False, False, True], "what is dead by construction is no test"
    assert found["mde80_pp"].iloc[1] > 0


def test_with_no_difference_verdicts_stay_rare() -> None:
    cells = {(layer, (k,)): (0.3, 0.3) for layer in range(2) for k in range(3)}
    wrong = sum(any(not Verdict(word).holds(0.0, 5.0) for word in table(cells, seed)["verdict"]) for seed in range(8))
    assert wrong <= 1


def test_every_verdict_is_that_of_its_simultaneous_interval_and_of_the_rules_margin() -> None:
    losses = {(0, (1,)): (0.6, 0.1), (1, (1,)): (0.3, 0.3), (2, (1,)): (0.18, 0.1)}
    records, draws, readings = invented(losses)
    for rule in (Rule(), Rule.of(margin_pp=45), Rule(alpha=0.2)):
        found = erasure_table(records, draws, readings, depth=4, num_latents=6, rule=rule)
        ends = zip(found["sim_low"], found["sim_high"], found["verdict"], strict=True)
        assert all(verdict(low, high, rule.margin_pp) == said for low, high, said in ends)
        assert (found["sim_low"] < found["ci_low"]).all() and (found["sim_high"] > found["ci_high"]).all()
    assert found["verdict"][0] == "ABOVE"


def test_cells_that_nothing_reads_widen_nobody_and_few_draws_are_too_few() -> None:
    with_dead, without = table({(0, (1,)): (0.6, 0.1), (3, (5,)): (0.0, 0.0)}), table({(0, (1,)): (0.6, 0.1)})
    assert with_dead["sim_low"][0] == pytest.approx(without["sim_low"][0])
    assert without["sim_low"][0] == pytest.approx(without["ci_low"][0]), "a family of one"
    records, draws, readings = invented({(0, (1,)): (0.6, 0.1)})
    few = {name: found for name, found in draws.items() if found is None or found < 4}
    found = erasure_table(records[records["method"].isin([*few])], few, readings, depth=4, num_latents=6)
    assert found["verdict"][0] == "UNRESOLVED" and "too small" in found["note"][0]


def test_nothing_lost_at_all_is_bounded_exactly_and_no_number_is_invented() -> None:
    found = table({(0, (1,)): (0.0, 0.0)})
    # Twenty draws are twenty tries: they cannot exclude a difference of 5 pp.
    assert found["verdict"].tolist() == ["UNRESOLVED"] and not (found["p"] < 1).any()
    assert found["sim_high"][0] == -found["sim_low"][0] == pytest.approx(100 * (1 - 0.05 ** (1 / DRAWS)))
    assert found["note"][0] == "every cell is equal: exact bounds"
    assert "no variation" in tables(found)[0].rows[0]


def test_the_table_and_the_sentences_say_what_was_found() -> None:
    found = table({(0, (1,)): (0.6, 0.1), (1, tuple(range(6))): (0.3, 0.3)})
    said, (effects, details) = " ".join(sentences(found, "operation")), tables(found)
    assert "Erasing operation, less random directions of the same rank: ABOVE (more than 5 pp) in L0 CT1 (" in said
    assert "UNRESOLVED (not told from 0, nor from 5 pp or more: this run cannot say) in 1 cell" in said
    assert "reads operation on held-out problems at 90% before the erasure and 34% after it" in said
    assert effects.rows[1][:4] == ("L1", "CT0-CT5", "UNRESOLVED", "80") and "100.0%" in details.rows[1]
    assert "90% → 34% (88%)" in details.rows[1] and "chance 33%" in details.reading
    assert all(len(row) == len(part.header) for part in (effects, details) for row in part.rows)
    assert len(short_rows(found)) == 3
    assert "ABOVE" not in sentences(found.iloc[1:], "operation")[0]


def test_a_table_of_an_earlier_version_is_shown_with_its_words_and_said_to_be_one() -> None:
    old = table({(0, (1,)): (0.6, 0.1)}).drop(columns=["sim_low", "sim_high", "note"])
    old["verdict"] = "its own words"
    assert "made by an earlier version" in sentences(old, "operation")[0]
    assert tables(old)[0].rows[0][2] == "its own words" and "undefined" in tables(old)[0].rows[0]


def test_incomplete_records_are_refused() -> None:
    records, draws, readings = invented({(0, (1,)): (0.5, 0.1)})
    with pytest.raises(AnalysisError, match="not every arm has every host"):
        erasure_table(records.iloc[5:], draws, readings, depth=4, num_latents=6)


def failed(records: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """The records with some cells failed: which they are is known, what they answered is not."""
    return records.assign(
        **{name: records[name].astype(object).where(~records.index.isin(rows), None) for name in ("correct", "changed")}
    )


def figures(found: pd.DataFrame) -> pd.DataFrame:
    return found.drop(columns="n_failed")


def test_a_host_whose_erasure_failed_is_in_no_figure() -> None:
    records, draws, readings = invented({(0, (1,)): (0.5, 0.2), (1, (1,)): (0.4, 0.2)})
    at = {"depth": 4, "num_latents": 6}
    there = (records["site_layer"] == 0) & records["problem_id"].isin(["p3", "p9"])
    hit, gone = records.index[there & (records["method"] == "erase")], records.index[there]
    found = erasure_table(failed(records, hit), draws, readings, **at)
    expected = erasure_table(records.drop(gone), draws, readings, **at)
    assert list(found["n_failed"]) == [2, 0] and list(found["n"]) == [HOSTS - 2, HOSTS]
    pd.testing.assert_frame_equal(figures(found), figures(expected))
    assert "2 edited cells failed and are in no figure." in sentences(found, "operation")


def test_a_random_draw_that_failed_leaves_its_hosts_other_draws() -> None:
    records, draws, readings = invented({(0, (1,)): (0.5, 0.2)}, seed=4)
    drawn = records[records["method"].str.startswith("random")]
    hit = drawn.sample(60, random_state=0).index
    row = erasure_table(failed(records, hit), draws, readings, depth=4, num_latents=6).iloc[0]
    kept = records.drop(hit)
    lost = {(m, p): 1.0 - c for m, p, c in zip(kept["method"], kept["problem_id"], kept["correct"], strict=True)}
    own = {p: value for (m, p), value in lost.items() if m.startswith("erase")}
    random = {p: [v for (m, q), v in lost.items() if q == p and m.startswith("random")] for p in own}
    gap = np.mean([own[p] - np.mean(random[p]) for p in own])
    assert row["difference_pp"] == pytest.approx(100 * gap, abs=1e-9) and row["n_failed"] == 60
    assert row["random_acc"] == pytest.approx(1 - np.mean([np.mean(values) for values in random.values()]))
    as_large = sum(
        np.mean([v - own[p] for (m, p), v in lost.items() if m == f"random {d}"]) >= -1e-12 for d in range(DRAWS)
    )
    assert row["p_draws"] == pytest.approx((as_large + 1) / (DRAWS + 1)) and row["draws"] == DRAWS


def test_a_cell_of_which_nothing_is_left_has_no_figure() -> None:
    records, draws, readings = invented({(0, (1,)): (0.5, 0.2), (1, (1,)): (0.4, 0.2)})
    gone = records.index[(records["method"] == "erase") & (records["site_layer"] == 0)]
    found = erasure_table(failed(records, gone), draws, readings, depth=4, num_latents=6)
    assert found["n"].tolist() == [0, HOSTS] and found["n_failed"].tolist() == [HOSTS, 0]
    assert found.loc[0, ["acc", "impact_pp", "difference_pp", "p", "p_holm", "p_draws"]].isna().all()
    assert found["verdict"][0] == "UNDEFINED" and len(tables(found)[0].rows) == 2


def test_halves_share_no_text_and_hold_every_class() -> None:
    texts = [f"question {i // 2}" for i in range(40)]
    labels = ["a" if i < 24 else "b" for i in range(40)]
    fit, held = halves(texts, labels, 0)
    assert sorted(fit + held) == list(range(40))
    assert not {texts[i] for i in fit} & {texts[i] for i in held}
    assert sum(labels[i] == "a" for i in fit) == 12 and sum(labels[i] == "b" for i in fit) == 8
    assert halves(texts, labels, 1)[0] != fit


def test_slots_are_those_asked_for_and_all_of_them() -> None:
    assert slot_sets(None, 3) == ((0,), (1,), (2,), (0, 1, 2))
    assert slot_sets("2,0", 3) == ((0,), (2,), (0, 2))
    assert slot_sets("1", 3) == ((1,),)
    with pytest.raises(PlanError, match=r"no such slot; got 'BOT'; expected each, or numbers in 0..2"):
        slot_sets("BOT", 3)
