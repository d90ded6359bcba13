"""Earlier looks: runs beside a new one that asked the same of the same model, counted by content, said in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from thoughtgraft.errors import RunError
from thoughtgraft.records.earlier import Content, find_looks
from thoughtgraft.records.looks import Look, Looks
from thoughtgraft.records.spec import RunSpec, read_spec
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore

Make = Callable[..., Path]
SWAPS = [{"method": "baseline", "slots": []}, {"method": "swap", "slots": [0], "stratum": "random"}]


def asked(*numbers: int) -> list[Content]:
    return [(f"What is {n} + 1?", str(n + 1)) for n in numbers]


@pytest.fixture
def make_run(tmp_path: Path, make_spec: Callable[..., RunSpec]) -> Make:
    """A run folder `name` below runs/, of so many problems; its ids say nothing of what they are."""

    def build(name: str, problems: Sequence[Content], plan: dict[str, Any] | None = None, **changes: Any) -> Path:
        out = tmp_path / "runs" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        spec = make_spec(**{"n_hosts": len(problems), "plan": {"arms": SWAPS} | (plan or {}), **changes})
        with RunStore.create(out, spec) as store:
            rows = [{"id": f"{name}_{i}", "question": q, "gold": gold} for i, (q, gold) in enumerate(problems)]
            store.write_table("problems.parquet", pd.DataFrame(rows))
        return out

    return build


def look(out: Path, spec: RunSpec, hosts: Sequence[Content], *beside: Path) -> Looks:
    return find_looks(out, spec, hosts, hosts, beside)


def test_hosts_and_donors_seen_before_are_counted_by_content(
    tmp_path: Path, make_run: Make, make_spec: Callable[..., RunSpec]
) -> None:
    make_run("a", asked(*range(8)))
    make_run("b", asked(*range(6, 12)))
    make_run("far", asked(90, 91))
    out, spec = tmp_path / "runs" / "new", make_spec(plan_hash="q1", n_hosts=15)
    looks = look(out, spec, asked(*range(5, 20)))
    assert [(Path(x.run).name, x.n_hosts, x.hosts, x.donors) for x in looks.runs] == [
        ("a", 8, 3, 3),
        ("b", 6, 6, 6),
        ("far", 2, 0, 0),
    ]
    assert (looks.n_hosts, looks.hosts, looks.donors, looks.notes) == (15, 7, 7, ()), "6 and 7 count once"
    first, second = looks.lines(spec.run_id)
    assert first == "7 of these 15 hosts and 7 of their 15 donors were seen before, in b (6 hosts) and a (3 hosts)."
    assert second.startswith("A larger number of hosts in a new folder is a second look (a had 8): no interval")


def test_another_answer_is_another_problem_and_one_asked_twice_counts_twice(
    tmp_path: Path, make_run: Make, make_spec: Callable[..., RunSpec]
) -> None:
    make_run("a", [("How many?", "3"), ("Which?", None)])
    hosts = [("How many?", "4"), ("Which?", None), ("How many?", "3"), ("How many?", "3")]
    assert look(tmp_path / "runs" / "new", make_spec(), hosts).hosts == 3


MODEL = {"weights": "w0", "dtype": "float32", "num_latents": 6}


@pytest.mark.parametrize(
    ("changes", "counts", "differs"),
    [
        ({}, True, ()),
        ({"model": "renamed", "model_hash": "m1"}, True, ()),  # the same weights under another name
        ({"model_identity": MODEL | {"dtype": "bfloat16", "edit": {"name": "x"}}}, True, ("dtype", "edit")),
        ({"model_identity": MODEL | {"weights": "w1"}}, False, ()),  # other weights under the same name
        ({"model_identity": None, "model_hash": "m1"}, True, ()),  # an old run: known by the name
        ({"model_identity": None, "model": "other"}, False, ()),
        ({"study": "operations"}, False, ()),
        ({"protocol": "cot-exploration-original"}, False, ()),
    ],
)
def test_only_runs_of_the_same_weights_study_and_protocol_count(
    tmp_path: Path,
    make_run: Make,
    make_spec: Callable[..., RunSpec],
    changes: dict[str, Any],
    counts: bool,
    differs: tuple[str, ...],
) -> None:
    make_run("a", asked(1, 2), **({"model_identity": MODEL} | changes))
    found = look(tmp_path / "runs" / "new", make_spec(model_identity=MODEL), asked(1, 2))
    assert [(x.hosts, x.differs) for x in found.runs] == ([(2, differs)] if counts else [])
    if differs:
        assert found.summary.endswith(" in a (there with another dtype and edit)")


def test_a_run_of_the_first_schema_beside_is_an_earlier_look(
    rule1_run: Path, make_spec: Callable[..., RunSpec]
) -> None:
    hosts = [tuple(row) for row in pd.read_parquet(rule1_run / "problems.parquet")[["question", "gold"]].to_numpy()]
    found = look(rule1_run.parent / "new", make_spec(model_identity=MODEL), [*hosts[:4], *asked(1)])
    assert (found.hosts, found.n_hosts, found.runs[0].differs) == (4, 5, ())


@pytest.mark.parametrize(
    ("plan", "hosts", "donors"),
    [
        ({"hosts": 2}, 2, 4),
        ({"hosts": 2, "only_correct": True}, 4, 4),  # which were right is not read: any may have been
        ({"triples": [[0, 1, 3], [0, 2, 3], [3, 3, 3]]}, 2, 2),
        ({"triples": [["a_0", "a_1", 3], ["a_0", "a_2", 3], ["a_3", "a_3", 3]]}, 2, 2),
        ({"arms": [{"method": "zero", "slots": [0]}]}, 4, 0),
    ],
)
def test_who_was_host_or_donor_there_is_read_from_its_plan(
    tmp_path: Path, make_run: Make, make_spec: Callable[..., RunSpec], plan: dict[str, Any], hosts: int, donors: int
) -> None:
    make_run("a", asked(0, 1, 2, 3), plan)
    found = look(tmp_path / "runs" / "new", make_spec(), asked(0, 1, 2, 3))
    assert (found.hosts, found.donors) == (hosts, donors)


def test_what_cannot_be_read_is_noted_and_what_is_no_run_is_passed_over(
    tmp_path: Path, make_run: Make, make_spec: Callable[..., RunSpec]
) -> None:
    runs = make_run("good", asked(1)).parent
    for name, text in {"cut": '{"schema', "newer": '{"schema_version": 99}', "foreign": '{"mine": 1}'}.items():
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(text)
    (make_run("torn", asked(1)) / "problems.parquet").write_bytes(b"PAR1 and no more")
    (make_run("early", asked(1)) / "problems.parquet").unlink()
    pd.DataFrame({"id": ["x"]}).to_parquet(make_run("lean", asked(1)) / "problems.parquet")
    (runs / "notes").mkdir()
    (runs / "notes.txt").write_text("mine")
    found = look(runs / "new", make_spec(), asked(1), tmp_path / "nowhere", runs / "notes")
    assert found.hosts == 1 and [Path(x.run).name for x in found.runs] == ["good"]
    told = "\n".join(found.notes)
    assert len(found.notes) == 8, told
    for word in ("cut", "newer", "foreign", "torn", "early has not stored its problems", "lean", "nowhere", "no run"):
        assert word in told
    assert found.lines("r")[-1].startswith("Not counted among earlier looks: ")


def test_places_given_are_runs_or_folders_of_runs_and_count_once(
    tmp_path: Path, make_run: Make, make_spec: Callable[..., RunSpec]
) -> None:
    one = make_run("old/one", asked(1, 2))
    make_run("old/two", asked(2, 3))
    out = tmp_path / "new" / "run"
    assert look(out, make_spec(), asked(1, 2, 3)).runs == ()
    assert look(out, make_spec(), asked(1, 2, 3), one).hosts == 2
    assert look(out, make_spec(), asked(1, 2, 3), one, one.parent, one).hosts == 3
    (tmp_path / "link").symlink_to(one)
    assert len(look(out, make_spec(), asked(1, 2), one, tmp_path / "link").runs) == 1


def test_a_run_is_not_its_own_earlier_look_and_the_same_run_made_twice_is_no_second_finding(
    make_run: Make, make_spec: Callable[..., RunSpec]
) -> None:
    out = make_run("a", asked(1, 2))
    assert look(out, read_spec(out), asked(1, 2)).runs == ()
    assert look(out.parent / ".." / "runs" / "a", read_spec(out), asked(1, 2)).runs == ()
    twice = look(out.parent / "again", read_spec(out), asked(1, 2))
    assert twice.lines(read_spec(out).run_id)[1].startswith("a is this very run")


def test_no_name_says_where_on_a_machine_a_folder_lies(
    tmp_path: Path, make_run: Make, make_spec: Callable[..., RunSpec]
) -> None:
    beside, deeper, far = make_run("a", asked(1)), make_run("b/c", asked(1)), make_run("../far/d", asked(1))
    (make_run("torn", asked(1)) / "problems.parquet").unlink()
    nowhere = tmp_path / "none" / "such"
    found = look(beside.parent / "new", make_spec(), asked(1), deeper, far, nowhere)
    assert [x.run for x in found.runs] == ["a", "b/c", "far/d"]
    assert found.notes == ("torn has not stored its problems", "none/such cannot be read (No such file or directory)")
    assert look(beside / "new", make_spec(), asked(1)).runs[0].run == "runs/a", "a run within another's folder"


def test_run_json_keeps_the_looks_typed_and_status_says_them(tmp_path: Path, make_spec: Callable[..., RunSpec]) -> None:
    looks = Looks(4, 3, 2, 1, (Look("runs/a", "r", ("dtype",), 2, 2, 1),), ("runs/b/run.json is damaged",))
    with RunStore.create(tmp_path / "x", make_spec(looks=looks)):
        pass
    assert read_spec(tmp_path / "x").looks == looks
    status = read_status(tmp_path / "x")
    assert status.looks == looks
    assert json.loads(status.to_json())["looks"]["runs"][0]["hosts"] == 2
    assert (
        looks.summary
        == "2 of these 4 hosts and 1 of their 3 donors were seen before, in runs/a (there with another dtype)"
    )
    file = tmp_path / "x" / "run.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"looks": {"hosts": 2}}))
    with pytest.raises(RunError, match=r"run\.json is damaged; got looks"):
        read_status(tmp_path / "x")
    file.write_text(json.dumps(stored | {"looks": stored["looks"] | {"more": 1}}))
    with pytest.raises(RunError, match="damaged"):
        read_spec(tmp_path / "x")


def test_few_are_named_and_the_rest_counted() -> None:
    runs = tuple(Look(f"runs/{i}", "r", (), 9, 9 - i, 0) for i in range(5))
    assert Looks(9, 0, 9, 0, runs).summary == (
        "9 of these 9 hosts were seen before, in runs/0 (9 hosts), runs/1 (8 hosts), runs/2 (7 hosts) and 2 more"
    )
    assert Looks(9, 0, 0, 0).lines("r") == []
    apart = Looks(9, 0, 0, 0, (Look("runs/a", "r", (), 9, 0, 0),))
    assert (apart.summary, apart.lines("r")) == ("", [])
