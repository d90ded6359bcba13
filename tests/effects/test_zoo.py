"""A zoo from invented measurements: a model that thinks beside a control that does not, and one beside itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.effects.test_lens_hits import PROBLEMS

from thoughtgraft.errors import AnalysisError
from thoughtgraft.stats.verdicts import Verdict, verdict
from thoughtgraft.studies.zoo.analysis import ZooResult, analyse_zoo
from thoughtgraft.studies.zoo.conclusions import against_controls, in_short, surviving
from thoughtgraft.studies.zoo.evidence import Measured
from thoughtgraft.studies.zoo.report import write_zoo

HOSTS = [p.id for p in PROBLEMS]
LABELS = pd.DataFrame(
    {
        "id": HOSTS,
        "question": [p.question for p in PROBLEMS],
        "operation": ["addition", "mixed"] * 10,
        "n_steps": [2] * 20,
        "split": "test",
    }
)


def records(effect: bool) -> pd.DataFrame:
    """One slot; every edit makes the even problems fail and answer what the donor does, or changes nothing."""
    rows = []
    for method in ("baseline", "noop", "self", "swap", "mean", "zero", "skip"):
        for i, host in enumerate(HOSTS):
            for step in (1, 3, 7) if method == "swap" else (0,):
                hit = effect and i % 3 > 0 and method not in ("baseline", "noop", "self")
                donor = (i + step) % 20
                rows.append(
                    {
                        "method": method,
                        "slots": None if method in ("baseline", "noop") else [0],
                        "downstream": "recompute",
                        "problem_id": host,
                        "gold": str(i),
                        "base_pred": str(i),
                        "base_correct": True,
                        "donor_id": HOSTS[donor] if step else None,
                        "donor_stratum": "random" if step else None,
                        "donor_pred": str(donor) if step else None,
                        "pred": (str(donor) if step else "99") if hit else str(i),
                        "correct": not hit,
                    }
                )
    return pd.DataFrame(rows)


def model(name: str, method: str, right: list[bool], *, effect: bool = False, reads: bool = False) -> Measured:
    rng = np.random.default_rng(3)
    states = rng.standard_normal((20, 2 if method != "direct" else 1, 4)).astype("float32")
    if reads:
        states[:, :, 0] += 8 * np.array([0, 1] * 10)[:, None]
    tokens = [str(50 + i) if reads and i != 4 else "31" for i in range(20)]
    correct = pd.DataFrame({"problem_id": HOSTS, "n_steps": [2] * 20, "operation": LABELS.operation})
    main = "answer" if method == "direct" else "thoughts"
    correct = correct.assign(**{main: right, "explicit reasoning": True})
    card = {"steps": 10, "seed": 1, "parameters": 5 if method == "direct" else 6}
    if method == "direct":
        return Measured(name, method, 0, card, main, correct, None, None, None, states, "it was made so")
    correct = correct.assign(**{"0 thoughts": False})
    decoded = pd.DataFrame({"problem_id": HOSTS, "slot": 0, "rank": 0, "token": tokens})
    checks = [{"name": "self-swap identity", "passed": True}, {"name": "other", "passed": method != "pause"}]
    certificate = {"passed": method != "pause", "checks": checks}
    return Measured(name, method, 1, card, main, correct, certificate, records(effect), decoded, states)


ALL, NONE = [True] * 20, [False] * 20
ZOO = [
    model("codi", "codi", ALL, effect=True, reads=True),
    model("pause", "pause", NONE),
    model("direct", "direct", [False] * 19 + [True]),
]


@pytest.fixture(scope="module")
def zoo():
    return analyse_zoo(ZOO, PROBLEMS, LABELS, seed=0)


def test_pairs_are_exact_and_their_family_is_the_pairs(zoo) -> None:
    table = zoo.tables["pairs"].set_index(["a", "b"])
    first = table.loc[("codi", "pause")]
    assert (first.difference_pp, first.only_a, first.only_b, first.n) == (100, 20, 0, 20)
    assert first.p == pytest.approx(2 * 0.5**20) and first.p_holm == pytest.approx(3 * first.p)
    assert table.loc[("pause", "direct")].p_holm == 1
    assert list(table.problems.unique()) == ["all"], "all problems have as many steps"


def test_a_planted_effect_survives_and_its_absence_is_not_found(zoo) -> None:
    table = zoo.tables["findings"].set_index("finding")
    swap = table.loc["accuracy lost when all thoughts are another problem's"]
    assert swap.own == pytest.approx(65) and swap.in_control == 0
    assert (swap.own_verdict, swap.control_verdict, swap.verdict) == ("ABOVE", "BY CONSTRUCTION", "ABOVE")
    assert table.loc["donor's answer adopted beyond chance, all thoughts swapped"].verdict == "ABOVE"
    assert table.loc["the final answer decoded beyond chance, at any slot"].verdict == "ABOVE"
    assert table.loc["an intermediate value decoded beyond chance, at any slot"].own_verdict == "UNDEFINED"
    assert any("n_steps was not probed" in note for note in zoo.notes)
    read = next(name for name in table.index if name.startswith("the operation read"))
    assert table.loc[read].own > 20


def test_what_the_control_shows_too_is_no_evidence() -> None:
    twin = replace(model("pause", "pause", ALL, effect=True, reads=True), records=records(True))
    result = analyse_zoo([ZOO[0], twin], PROBLEMS, LABELS, seed=0)
    table = result.tables["findings"].set_index("finding")
    zero = table.loc["accuracy lost when all thoughts are zero"]
    assert (zero.own_verdict, zero.control_verdict) == ("ABOVE", "ABOVE") and zero.difference == 0
    assert Verdict(zero.verdict).tone != "found"
    [said] = [c for c in surviving(result) if "thoughts are zero" in c.text]
    assert said.verdict != "it survives the control"
    assert table.loc["the final answer decoded beyond chance, at any slot"].difference == 0


def test_without_a_pause_model_nothing_is_said_of_findings() -> None:
    result = analyse_zoo([ZOO[0], ZOO[2]], PROBLEMS, LABELS, seed=0)
    assert result.tables["findings"].empty and not surviving(result)
    assert analyse_zoo([ZOO[2]], PROBLEMS, LABELS, seed=0).tables["positions"].empty


def test_every_direction_has_its_sentence(zoo) -> None:
    said = {c.row: c for c in against_controls(zoo, "all")}
    assert (
        said["P1"].verdict == "ABOVE"
        and "codi answers more problems right, by more than 5 pp, than pause: +100.0 pp [" in said["P1"].text
    )
    turned = analyse_zoo([ZOO[1], ZOO[0]], PROBLEMS, LABELS, seed=0)
    [sentence] = against_controls(turned, "all")
    assert sentence.text.startswith("codi answers more problems right, by more than 5 pp, than pause: +100")
    exchanged = [replace(ZOO[i], correct=ZOO[1 - i].correct) for i in (0, 1)]
    worse = analyse_zoo(exchanged, PROBLEMS, LABELS, 0)
    assert "codi answers fewer problems right than pause: −100.0 pp" in against_controls(worse, "all")[0].text
    few = [replace(m, correct=ZOO[0].correct) for m in ZOO[:2]]
    assert "cannot be told apart from" in against_controls(analyse_zoo(few, PROBLEMS, LABELS, 0), "all")[0].text


def test_a_small_difference_that_is_sure_is_called_small() -> None:
    """12 of 2,000 pairs differ, all one way: a difference, and less than 5 pp."""
    row = {"a": "codi", "b": "pause", "problems": "all", "n": 2000, "difference_pp": 0.6, "ci_low": 0.2, "ci_high": 1.0}
    row |= {"sim_low": 0.1, "sim_high": 1.1, "verdict": "SMALL"}
    pairs = pd.DataFrame([{"id": "P1", **row, "p": 0.0005, "p_holm": 0.0005}])
    [said] = against_controls(ZooResult((ZOO[0], ZOO[1]), {"pairs": pairs}, ()), "all")
    assert (said.verdict, said.row) == ("SMALL", "P1")
    [turned] = against_controls(ZooResult((ZOO[1], ZOO[0]), {"pairs": pairs.assign(a="pause", b="codi")}, ()), "all")
    assert turned.verdict == "OPPOSITE" and "codi answers fewer problems right than pause: −0.6 pp" in turned.text
    assert said.text.startswith("codi answers more problems right, by less than 5 pp, than pause: +0.6 pp [0.2, 1.0]")


def test_verdicts_in_short_name_their_rows(zoo) -> None:
    assert in_short(against_controls(zoo, "all")) == "In short: ABOVE in P1 and P2."
    short = in_short(surviving(zoo))
    assert short.startswith("In short: it survives the control, as by construction it must, in F1, F2 and F4; it surv")
    assert "; it is not shown in the model in F5" in short
    assert {c.row for c in surviving(zoo)} == set(re.findall(r"F\d+", short))


def test_every_verdict_of_a_zoo_is_that_of_its_simultaneous_interval(zoo) -> None:
    pairs, found = zoo.tables["pairs"], zoo.tables["findings"]
    columns = [
        (pairs, ""),
        (found, ""),
        (found, "own_"),
        (found[found.control_verdict != "BY CONSTRUCTION"], "control_"),
    ]
    for table, name in columns:
        ends = zip(table[f"{name}sim_low"], table[f"{name}sim_high"], table[f"{name}verdict"], strict=True)
        assert all(verdict(low, high, 5.0) == said for low, high, said in ends)
    assert (pairs.sim_low < pairs.ci_low).any() and (found.own_sim_low.dropna() <= found.own_low.dropna()).all()


def test_models_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(AnalysisError, match="different models; got codi, codi"):
        analyse_zoo([ZOO[0], ZOO[0]], PROBLEMS, LABELS, 0)
    other = replace(ZOO[1], correct=ZOO[1].correct.iloc[::-1])
    with pytest.raises(AnalysisError, match="not asked the same problems; got pause"):
        analyse_zoo([ZOO[0], other], PROBLEMS, LABELS, 0)


def test_the_page_cites_rows_that_exist(zoo, tmp_path: Path) -> None:
    page = write_zoo(zoo, {"problems": "20 invented"}, tmp_path).md.read_text()
    data = json.loads((tmp_path / "zoo.json").read_text())
    known = {row["id"] for table in data["tables"].values() for row in table}
    said = [c for group in data["conclusions"].values() for c in group]
    assert len(said) >= 8 and all(c["row"] in known and f"({c['row']})" in c["text"] for c in said)
    assert set(re.findall(r"\(([APRLMFC]\d+)\)", page)) <= known
    assert "Equal for all models: optimizer steps and seed." in page and "Not equal: parameters." in page
    assert "certificates: 1 of 2 passed" in page
    assert "Trained on: codi, pause and direct: written steps, answers, and distillation" in page
    assert "direct has no row for fewer or replaced thoughts: nothing is fed, since it was made so." in page
    assert {f.name for f in (tmp_path / "figures").glob("*.png")} >= {"dose.png", "impact.png", "lens.png", "pairs.png"}
    answers = pd.read_csv(tmp_path / "tables" / "answers.csv")
    assert answers["codi: thoughts"].sum() == 20 and answers["direct: answer"].sum() == 1


def test_answers_and_generations_that_failed_are_counted_and_in_no_rate(tmp_path) -> None:
    answers = pd.array([True] * 5 + [None] * 3 + [False] * 12, dtype="boolean")
    made = ZOO[0].records
    assert made is not None
    hit = made.index[(made.method == "swap") & (made.problem_id == HOSTS[4])]
    broken = made.assign(error=None)
    for name in ("pred", "correct"):
        broken[name] = broken[name].astype(object).where(~broken.index.isin(hit), None)
    broken.loc[hit, "error"] = "the edit gave NaN at CT0"
    one = replace(ZOO[0], correct=ZOO[0].correct.assign(**{"0 thoughts": answers}), records=broken)
    assert one.n_failed == 3 + len(hit)
    result = analyse_zoo([one, *ZOO[1:]], PROBLEMS, LABELS, seed=0)
    row = result.tables["accuracy"].query("model == 'codi' and condition == '0 thoughts'").iloc[0]
    assert (row.n, row.correct, row.accuracy) == (17, 5, 5 / 17)
    swap = result.tables["positions"].query("model == 'codi' and method == 'swap'").iloc[0]
    assert (swap.n_gen, swap.n_failed) == (60 - len(hit), len(hit))
    page = write_zoo(result, {"problems": "20"}, tmp_path).md.read_text()
    assert "failed" in page.split("\n## ")[0] and str(one.n_failed) in page.split("\n## ")[0]
    kept = pd.read_csv(tmp_path / "tables" / "answers.csv")["codi: 0 thoughts"]
    assert kept.isna().sum() == 3 and kept.sum() == 5
