"""The operations report: claims first, controls beside every score, drawn from the tables on disk alone."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.probing.plant import features, labels
from tests.probing.test_planted import QUICK
from tests.report.invent import parse_table, passing, spec

from thoughtgraft.errors import RunError
from thoughtgraft.records.looks import Look, Looks
from thoughtgraft.records.store import RunStore
from thoughtgraft.stats.verdicts import verdict
from thoughtgraft.studies.operations.analysis import analyze_operations
from thoughtgraft.studies.operations.figures import analysed_targets, load
from thoughtgraft.studies.operations.report import write_pages

HOSTILE = "<script>alert(1)</script>"
FIGURES = {"probe_map", "confusion", "learning_curve", "components", "similarity", "cka"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An analysis of a class, with a hostile class name, and of a number, written below a plain folder."""
    path = tmp_path_factory.mktemp("operations")
    table = labels(90)
    source = features(table, planted=2.5)
    table["operation"] = table.operation.replace("mixed", HOSTILE)
    analyze_operations(source, table, ["operation", "amount"], settings=QUICK, out=path)
    return path


@pytest.fixture(scope="module")
def report(folder):
    return write_pages(load(folder))


def test_claims_come_first_and_controls_stand_beside(report):
    text = report.md.read_text()
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles[:2] == ["Claims and verdicts", "Design"]
    assert titles[-2:] == ["Provenance", "Definitions"]
    said = "'operation', read beyond the question's words and a control task: ABOVE (more than 0.05) at CT1 (layer 5; "
    assert said + "effect" in text
    rows = parse_table(text, "### operation: the claim by position")
    for row in rows:
        low, high = (float(end.replace("−", "-")) for end in row["simultaneous"].strip("[]").split(", "))
        assert verdict(low, high, 0.05) == row["verdict"]
    assert {"ABOVE", "UNRESOLVED"} <= {row["verdict"] for row in rows}
    header = next(line for line in text.splitlines() if line.startswith("| position | layer |"))
    for column in ("majority", "words", "BOT", "control", "gain over words", "selectivity", "p max-T"):
        assert f"| {column} |" in header
    assert "not certified: the features come from a file" in text


def test_every_figure_of_both_targets(report):
    names = {path.stem for path in report.figures}
    assert {f"{name}_operation" for name in FIGURES} <= names
    assert {f"{name}_amount" for name in FIGURES - {"confusion"}} <= names
    assert "'amount' is a number: nothing to confuse" in report.md.read_text()
    for png in report.figures:
        with Image.open(png) as image:
            assert np.asarray(image.convert("L")).std() > 8, png.name


def test_html_is_one_safe_file(report):
    text = report.html.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r'(?:src|href)="(?!#|data:image/png)', text)


def test_the_tables_are_on_disk_and_the_report_needs_no_more(folder, report):
    probes = pd.read_parquet(folder / "analysis" / "probes.parquet")
    for column in ("target slot layer features probe n d cv acc balanced_acc macro_f1 logloss majority text_acc "
                   "bot_acc delta_vs_text control_acc selectivity p_perm p_maxT stratum").split():  # fmt: skip
        assert column in probes
    assert analysed_targets(folder) == ["operation", "amount"]
    before = report.md.read_bytes()
    assert write_pages(load(folder)).md.read_bytes() == before


def test_a_failed_certificate_states_nothing_unless_forced_and_earlier_looks_are_said(folder, tmp_path):
    looks = Looks(90, 0, 60, 0, (Look("runs/prototype", "r", (), 60, 60, 0),))
    with RunStore.create(tmp_path, spec(90, 0, 0, study="operations", looks=looks)) as store:
        certificate = passing()
        certificate["checks"][0]["passed"] = False
        store.write_json("certificate.json", certificate)
    for file in (folder / "analysis").iterdir():
        (tmp_path / "analysis").mkdir(exist_ok=True)
        (tmp_path / "analysis" / file.name).write_bytes(file.read_bytes())
    refused = write_pages(load(tmp_path))
    assert not refused.figures
    assert "no result is stated" in refused.md.read_text()
    assert "ABOVE (" not in refused.md.read_text()
    text = refused.md.read_text()
    said = (
        "60 of these 90 hosts were seen before, in runs/prototype. A larger number of hosts in a new folder is a second"
    )
    assert 0 < text.index("- seen before: 60 of 90 hosts") < text.index(said) < text.index("## Claims and verdicts")
    forced = write_pages(load(tmp_path, force=True))
    assert forced.figures
    assert "INVALID, shown by force" in forced.html.read_text()


def test_verdicts_of_an_earlier_version_are_shown_as_they_are_stored(folder, tmp_path):
    for file in (folder / "analysis").iterdir():
        (tmp_path / "analysis").mkdir(exist_ok=True)
        (tmp_path / "analysis" / file.name).write_bytes(file.read_bytes())
    for name in ("claims", "probes", "regression"):
        file = tmp_path / "analysis" / f"{name}.parquet"
        stored = pd.read_parquet(file).drop(columns=["sim_low", "sim_high", "excess"])
        stored = stored.drop(columns="verdict") if name != "claims" else stored.assign(verdict="its own words")
        stored.to_parquet(file)
    text = write_pages(load(tmp_path)).md.read_text()
    assert "made by an earlier version" in text and "analyze RUN" in text
    rows = parse_table(text, "### operation: the claim by position")
    assert {(row["verdict"], row["simultaneous"]) for row in rows} == {("its own words", "undefined")}


def test_a_folder_without_an_analysis_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no analysis of an operations study\. Fix: thoughtgraft analyze"):
        write_pages(load(tmp_path))
