"""The erasure table on invented records whose true effect is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from thoughtgraft.analysis.erased import DEAD, LESS, MORE, NONE, Condition, Reading, erasure_table
from thoughtgraft.errors import AnalysisError, PlanError
from thoughtgraft.report.erasure import sentences, short_rows, tables
from thoughtgraft.studies.erasure import halves, slot_sets

DRAWS, HOSTS = 20, 80
READING = Reading(0.9, 0.34, 0.88, 1 / 3, 0.2, 0.21)


def invented(losses: dict[tuple[int, tuple[int, ...]], tuple[float, float]], seed: int = 0) -> tuple[Any, Any, Any]:
    """Records, conditions and readings; by cell, how often the erasure and a random edit cost the answer."""
    rng, rows, conditions = np.random.default_rng(seed), [], {}
    for (layer, slots), (own, random) in losses.items():
        for draw in (None, *range(DRAWS)):
            name = f"{'erase' if draw is None else f'random {draw}'} after L{layer}"
            conditions[name] = Condition(layer, draw)
            lost = rng.random(HOSTS) < (own if draw is None else random)
            rows += [
                {"method": name, "slots": list(slots), "problem_id": f"p{i}", "base_correct": True}
                | {"correct": not lost[i], "changed": bool(lost[i])}
                for i in range(HOSTS)
            ]
    rows.append({"method": "baseline", "slots": [], "problem_id": "p0", "base_correct": True, "correct": True})
    return pd.DataFrame(rows), conditions, dict.fromkeys(losses, READING)


def table(losses: dict[tuple[int, tuple[int, ...]], tuple[float, float]], seed: int = 0) -> pd.DataFrame:
    records, conditions, readings = invented(losses, seed)
    return erasure_table(records, conditions, readings, depth=4, num_latents=6)


def test_a_planted_effect_is_found_and_its_absence_is_not() -> None:
    found = table({(0, (1,)): (0.6, 0.1), (1, (1,)): (0.3, 0.3), (2, (1,)): (0.05, 0.6), (3, (5,)): (0.0, 0.0)})
    assert list(found["verdict"]) == [MORE, NONE, LESS, DEAD]
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
    wrong = sum((table(cells, seed)["verdict"] == MORE).any() for seed in range(8))
    assert wrong <= 1


def test_nothing_lost_at_all_is_no_evidence_and_no_number_is_invented() -> None:
    found = table({(0, (1,)): (0.0, 0.0)})
    assert found["verdict"].tolist() == [NONE] and found["p"].isna().all()
    assert "no variation" in tables(found)[0].rows[0]


def test_the_table_and_the_sentences_say_what_was_found() -> None:
    found = table({(0, (1,)): (0.6, 0.1), (1, tuple(range(6))): (0.3, 0.3)})
    said, (effects, details) = " ".join(sentences(found, "operation")), tables(found)
    assert "Erasing operation costs more than random directions do in 1 of 2 cells: L0 CT1 (" in said
    assert "reads operation on held-out problems at 90% before the erasure and 34% after it" in said
    assert effects.rows[1][:4] == ("L1", "CT0-CT5", NONE, "80") and "100.0%" in details.rows[1]
    assert "90% → 34% (88%)" in details.rows[1] and "chance 33%" in details.reading
    assert all(len(row) == len(part.header) for part in (effects, details) for row in part.rows)
    assert len(short_rows(found)) == 3
    assert sentences(found.iloc[1:], "operation")[0].startswith("No evidence that erasing operation matters more")


def test_incomplete_records_are_refused() -> None:
    records, conditions, readings = invented({(0, (1,)): (0.5, 0.1)})
    with pytest.raises(AnalysisError, match="not every arm has every host"):
        erasure_table(records.iloc[5:], conditions, readings, depth=4, num_latents=6)
    records["correct"] = records["correct"].astype(object).where(records.index != 3, None)
    with pytest.raises(AnalysisError, match="some cells failed; got 1"):
        erasure_table(records, conditions, readings, depth=4, num_latents=6)


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
