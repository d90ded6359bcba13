"""The report as a whole: built from few arms and from all, self-contained, and saying what the analysis says."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.report.invent import FEW, HOSTILE, make_run, parse_table, passing

from thoughtgraft.effects.gates import RULE, Known
from thoughtgraft.errors import RunError
from thoughtgraft.records.store import RunStore
from thoughtgraft.report.document import estimate, judged, markdown, percent
from thoughtgraft.studies.resampling import report as report_module
from thoughtgraft.studies.resampling.analysis import analyse
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.tasks.problem import Problem, Step

ALL_FIGURES = {
    "impact", "agreement", "mediation", "adoption", "dose", "problems_by_slot", "distribution", "decoded_thoughts",
}  # fmt: skip
ORDER = [
    "Claims and verdicts", "Design", "Certificate and gates", "Positions", "Contrasts", "Agreement",
    "Direct and indirect", "Adoption", "Dose", "Problem by problem", "What the thoughts decode to", "Deviations",
    "Provenance", "How to reproduce", "Definitions",
]  # fmt: skip


class Page(HTMLParser):
    """Tags, what they would load, and the text of the claim cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.cells: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "poster", "action")]
        if tag == "td":
            self._cell = []

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag == "td" and self._cell is not None:
            self.cells.append("".join(self._cell))
            self._cell = None


def analysis_of(run: Path, **options):
    return analyse(RunStore.open(run).frame(), None, 0, **options)


def test_every_section_in_order_and_every_figure(full):
    text = full.md.read_text()
    places = [text.index(f"## {title}") for title in ORDER]
    assert places == sorted(places)
    assert {path.stem for path in full.figures} == ALL_FIGURES
    assert "Not shown" not in text.replace("Not shown: adoption of single step values", "")
    assert "certificate passed: 2 of 2 checks" in text


def test_few_arms_say_what_is_missing_and_why(few):
    text = few.md.read_text()
    assert {path.stem for path in few.figures} == ALL_FIGURES - {"agreement", "mediation", "dose"}
    assert "It needs swap and an ablation" in text
    assert "It needs swaps with freeze" in text
    assert "It needs edits of several slots at once" in text
    assert "| not asked | – | it needs swaps of all slots at once |" in text
    assert "Gates without evidence: certificate, self\\_null, noop, transplant" in text.replace(" and ", ", ")
    assert "Not certified: the checks were switched off" in text


@pytest.mark.parametrize("which", ["few", "full"])
def test_figures_exist_in_both_formats_and_are_not_blank(which, request):
    for png in request.getfixturevalue(which).figures:
        with Image.open(png) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 500
        assert pixels.std() > 8
        # Something is drawn in every quarter of the width: no axes have collapsed.
        assert all((part < 200).any() for part in np.array_split(pixels, 4, axis=1)), png.name
        svg = png.with_suffix(".svg").read_text()
        assert svg.lstrip().startswith("<?xml")
        assert "<script" not in svg


@pytest.mark.parametrize("which", ["few", "full"])
def test_html_is_one_file_that_loads_nothing(which, request):
    text = request.getfixturevalue(which).html.read_text()
    page = Page(text)
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in page.loads)
    assert "script" not in page.tags
    assert "@import" not in text
    assert "url(" not in text
    anchors = {load[1:] for load in page.loads if load.startswith("#")}
    assert anchors == set(re.findall(r'<section id="([^"]+)"', text))
    assert page.tags.count("img") == len(request.getfixturevalue(which).figures)
    assert len(text) < 3_000_000


def test_hostile_texts_are_shown_and_never_run(few):
    html, md = few.html.read_text(), few.md.read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in html
    assert "<script" not in md
    assert markdown(HOSTILE) in md
    # The bar in the question must not open a new column.
    row = next(line for line in md.splitlines() if line.startswith("| p0") and "Tom has" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


def test_numbers_are_those_of_the_analysis(full):
    run = full.md.parent
    found = analysis_of(run, known=Known({"certificate": True, "transplant": True}))
    rows = parse_table(full.md.read_text(), "### Accuracy")
    table = found.positions.set_index(["method", "label", "downstream", "donor_stratum"])
    assert len(rows) == 6 * 6 + 2
    for row in rows:
        stratum = "random" if row["method"] in ("swap", "shuffle") else ""
        truth = table.loc[(row["method"], row["slot"], "recompute", stratum)]
        assert row["impact, pp [alone]"] == estimate(truth.impact_pp, truth.ci_low, truth.ci_high)
        assert row["simultaneous"] == judged(truth.sim_low, truth.sim_high, 5)
        assert row["accuracy"] == f"{percent(truth.base_acc)} → {percent(truth.acc)}"
    stored = pd.read_parquet(run / "analysis" / "positions.parquet")
    pd.testing.assert_frame_equal(stored, found.positions, check_dtype=False)
    decision = json.loads((run / "analysis" / "decision.json").read_text())
    assert [c["verdict"] for c in decision["claims"]] == list(found.decision.claims.verdict)


def test_markdown_and_html_agree_on_claims(full):
    rows = parse_table(full.md.read_text(), "### The claims in numbers")
    cells = Page(full.html.read_text()).cells
    claims = analysis_of(full.md.parent, known=Known({"certificate": True, "transplant": True})).decision.claims
    assert [row["verdict"] for row in rows] == list(claims.verdict)
    flat = [value.replace("&lt;", "<").replace("&gt;", ">") for row in rows for value in row.values()]
    start = next(i for i in range(len(cells)) if cells[i : i + 3] == flat[:3])
    assert [" ".join(c.split()) for c in cells[start : start + len(flat)]] == flat


def test_the_same_records_give_the_same_report_also_without_problems_and_decoded_thoughts(build_run):
    run = build_run(extras=False)
    first = write_report(run)
    text = first.md.read_text()
    assert "(its text is not in the run)" in text
    assert "The run has no decoded thoughts" in text
    assert "decoded_thoughts" not in {path.stem for path in first.figures}
    texts = {path: path.read_bytes() for path in (first.md, first.html, run / "journal.md", *first.figures)}
    write_report(run)
    assert {path: path.read_bytes() for path in texts} == texts


@pytest.mark.parametrize(
    ("n", "estimate", "words"),
    [
        (2, float("nan"), "CT0, step 0 and CT1, step 0"),
        (9, float("nan"), "9 subjects"),
        (9, 1.25, "9 subjects (1.2 pp to 9.2 pp)"),
    ],
)
def test_many_subjects_of_a_verdict_are_counted_not_listed(n, estimate, words):
    rows = [{"subject": f"CT{i}, step 0", "estimate": estimate + i, "unit": "pp", "note": ""} for i in range(n)]
    assert report_module._about(RULE.claims[0], rows) == words


def test_a_failed_certificate_refuses_effects_unless_forced(build_run):
    run = build_run(certificate=passing(False))
    refused = write_report(run)
    text = refused.md.read_text()
    assert refused.figures == ()
    assert "INVALID" in text
    assert "check transplant" in text
    assert "## Positions" not in text
    assert "no effect is stated" in text
    assert set(parse_table(text, "### The claims in numbers")[0].values()) & {"INVALID"}

    forced = write_report(run, force=True)
    text, html = forced.md.read_text(), forced.html.read_text()
    assert forced.figures
    assert "INVALID, shown by force" in text
    assert "## Positions" in text
    assert 'class="banner bad"' in html
    verdicts = {row["verdict"] for row in parse_table(text, "### The claims in numbers")}
    assert verdicts == {"INVALID"}


def test_switched_off_checks_are_said_on_every_page(few):
    html = few.html.read_text()
    assert 'class="banner warn" role="alert">Not certified: the checks were switched off' in html
    assert '@top-center { content: "NOT CERTIFIED"' in html
    assert few.md.read_text().count("Not certified: the checks were switched off") == 2


def test_without_a_certificate_no_effect_is_stated_unless_forced(build_run, no_figures):
    run = build_run(certify="auto")
    text = write_report(run).md.read_text()
    assert "INVALID: the run has no certificate. No effect is stated." in text
    assert "## Positions" not in text
    assert {row["verdict"] for row in parse_table(text, "### The claims in numbers")} == {"INVALID"}
    assert "thoughtgraft verify" in text
    text = write_report(run, force=True).md.read_text()
    assert "INVALID, shown by force: the run has no certificate" in text
    assert "## Positions" in text


def test_a_certificate_of_another_model_counts_as_failed(build_run, no_figures):
    text = write_report(build_run(certificate=passing() | {"model_hash": "beef"})).md.read_text()
    assert "check belongs to this run" in text
    assert "another model or protocol was certified" in text


def test_a_certificate_of_another_plan_counts_as_failed(build_run, no_figures):
    text = write_report(build_run(certificate=passing() | {"plan_hash": "beef"})).md.read_text()
    assert "check belongs to this run" in text
    assert "another plan was tried, not this" in text


def test_a_dead_slot_has_no_figure_and_a_verdict_of_its_own(build_run, no_figures):
    dead = {"dead_slots": [5], "shared_slots": [4], "notes": ["CT5: structurally null; read by nothing"]}
    run = build_run(certificate=passing() | dead)
    text = write_report(run).md.read_text()
    rows = {row["slot"]: row for row in parse_table(text, "### Accuracy")}
    for slot in ("CT4", "CT5"):
        assert (rows[slot]["impact, pp [alone]"], rows[slot]["verdict"]) == ("undefined", "BY CONSTRUCTION")
    assert rows["CT3"]["impact, pp [alone]"] != "undefined" and "so that this edit is the identity" in text
    assert "its effect is 0 by construction" in text
    assert "CT5: structurally null; read by nothing" in text
    claims = parse_table(text, "### The claims in numbers")
    null = [row for row in claims if row["about"].startswith(("CT4", "CT5"))]
    assert {(row["verdict"], row["estimate"]) for row in null} == {("BY CONSTRUCTION", "undefined")} and len(null) == 4
    stored = pd.read_parquet(run / "analysis" / "positions.parquet").set_index("label")
    assert stored.loc[["CT4", "CT5"], ["impact_pp", "p", "p_holm", "p_maxT", "kl"]].isna().all(axis=None)


def test_a_pilot_says_its_verdict(build_run, no_figures):
    text = write_report(build_run(plan={"preset": "pilot", "available_hosts": 7})).md.read_text()
    assert "Verdict of this pilot: NO-GO" in text


def test_values_of_single_steps_are_shown_when_the_problems_are_given(build_run, no_figures):
    run = build_run()
    answers = RunStore.open(run).frame(["problem_id", "base_pred"]).drop_duplicates()
    problems = [
        Problem(i, "?", Fraction(a), steps=(Step(Fraction(a), "+", Fraction(0), Fraction(a)),))
        for i, a in zip(answers.problem_id, answers.base_pred, strict=True)
    ]
    rows = parse_table(write_report(run, problems=problems).md.read_text(), "### Values of single steps")
    assert [(row["slot"], row["step"]) for row in rows] == [(f"CT{k}", "0") for k in range(6)]
    # The only step is the answer that the model gives, so adopting its value is adopting the answer.
    stored = pd.read_parquet(run / "analysis" / "positions.parquet").query("method == 'swap'")
    assert [row["rate"] for row in rows] == [percent(rate) for rate in stored.adoption_rate]


def test_a_model_that_is_mostly_wrong_is_pointed_out(build_run, no_figures):
    assert "little accuracy to lose" not in write_report(build_run()).md.read_text()
    run = make_run(build_run().parent / "weak", FEW, wrong_every=1)
    assert "little accuracy to lose" in write_report(run).md.read_text()


def test_only_a_baseline_is_a_report_too(build_run):
    paths = write_report(build_run((("baseline", (), "recompute", ""),)))
    assert "The run has no edited arm" in paths.md.read_text()


def test_inventory_and_journal(few):
    run = few.md.parent
    data = (run / "DATA.md").read_text()
    listed = {row["file"] for row in parse_table(data, "# Files of this run")}
    there = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and not p.name.endswith(".lock")}
    assert {name for name in there if not name.startswith("records/")} <= listed
    assert "not a file of this program" not in data
    journal = (run / "journal.md").read_text().strip()
    assert "\n" not in journal
    assert "H1" in journal
    assert str(run) not in data + journal + few.md.read_text() + few.html.read_text()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        write_report(tmp_path)


def test_a_certificate_that_is_none_is_named(build_run):
    run = build_run(FEW)
    (run / "certificate.json").write_text('{"all": "good"}')
    with pytest.raises(RunError, match=r"certificate\.json is damaged"):
        write_report(run)


@pytest.mark.parametrize("certified", [True, False])
def test_a_flawed_protocol_is_named_with_its_flaw_on_every_page(build_run, no_figures, certified) -> None:
    plan = {"protocol_flaw": "it feeds the wrong vector"}
    run = build_run(protocol="legacy", plan=plan, certificate=passing(certified))
    paths = write_report(run)
    said = "Protocol legacy replays a known mistake: it feeds the wrong vector."
    for text in (paths.md.read_text(), paths.html.read_text(), (run / "journal.md").read_text()):
        assert said in text
        assert "protocol" in text and "legacy" in text
    html = paths.html.read_text()
    assert '@bottom-left { content: "protocol legacy"' in html
    assert ('content: "FLAWED PROTOCOL"' if certified else 'content: "INVALID"') in html


def test_a_sound_protocol_is_in_the_foot_of_every_page_and_under_no_suspicion(few) -> None:
    html = few.html.read_text()
    assert '@bottom-left { content: "protocol official"' in html
    assert "known mistake" not in html
