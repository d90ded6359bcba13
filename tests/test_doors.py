"""Every public function refuses what it cannot use in one sentence, before anything is computed or written."""

from __future__ import annotations

import inspect
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import thoughtgraft
from tests.engine.tiny import loaded, questions
from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.effects.compare import compare_records
from thoughtgraft.effects.gates import Known
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.evaluate import evaluate
from thoughtgraft.engine.executors import make_executor
from thoughtgraft.engine.run import run
from thoughtgraft.engine.verify.suite import verify
from thoughtgraft.errors import AnalysisError, ModelError, PlanError, ProblemError, RunError, ThoughtgraftError
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.readouts.readout import decode_thoughts
from thoughtgraft.records.export import load_records
from thoughtgraft.records.states import load_states
from thoughtgraft.studies.comparison import compare_runs
from thoughtgraft.studies.registry import load_run
from thoughtgraft.studies.resampling.analysis import analyse
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.thoughts import Thoughts

STORED = Path(__file__).parent / "stored" / "rule1-schema1"
PLAN = Plan([Arm("baseline")])


@pytest.fixture(scope="module")
def model() -> LatentReasoner:
    return loaded("codi-gpt2", "float32")


@pytest.fixture(scope="module")
def problems() -> ProblemSet:
    return ProblemSet([Problem(f"p{i}", text, i) for i, text in enumerate(questions("codi-gpt2"))])


@pytest.fixture(scope="module")
def thoughts(model: LatentReasoner, problems: ProblemSet) -> Thoughts:
    return collect_thoughts(model, problems, max_new_tokens=2, progress=False)


def refused(error: type[ThoughtgraftError], told: str, call: Any, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=told) as raised:
        call(*args, **options)
    assert len(str(raised.value).splitlines()) == 1


def as_users_have_it(function: Any) -> Any:
    """The function without the checks of annotations that are made in tests alone."""
    spec = spec_from_file_location("unhooked", inspect.getsourcefile(inspect.unwrap(function)))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function.__name__)


RUN = {
    "the model": [
        (
            "tiny-codi",
            r"wrong kind of value for the model; got 'tiny-codi'.*Fix: load_model\('tiny-codi'\) gives it",
        ),
        (torch.nn.Linear(1, 1), r"wrong kind of value for the model; got Linear"),
    ],
    "the problems": [
        ("arithmetic:test", r"problems are wanted, not their name.*Fix: load_problems\('arithmetic:test'\) gives them"),
        (Path("mine.jsonl"), r"problems are wanted, not their name; got 'mine.jsonl'"),
        (PLAN, r"problems are not usable; got Plan\("),
        ({"question": "q?"}, r"problems are not usable; got \{"),
        ([{"question": "q?"}], r"row 0: the field 'answer' is missing"),
        ([], r"there are no problems; got an empty list"),
    ],
}


@pytest.mark.parametrize("call", [run, collect_thoughts, verify], ids=lambda call: call.__name__)
@pytest.mark.parametrize(("given_model", "told"), RUN["the model"], ids=["name", "module"])
def test_what_is_no_model_is_refused(call: Any, given_model: Any, told: str, problems: ProblemSet) -> None:
    refused(ModelError, told, call, given_model, problems, *([PLAN] if call is run else []))


@pytest.mark.parametrize("call", [run, collect_thoughts, verify], ids=lambda call: call.__name__)
@pytest.mark.parametrize(("given_problems", "told"), RUN["the problems"], ids=range(6))
def test_what_are_no_problems_is_refused(call: Any, given_problems: Any, told: str, model: LatentReasoner) -> None:
    refused(ProblemError, told, call, model, given_problems, *([PLAN] if call is run else []))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"plan": [Arm("baseline")]}, r"wrong kind of value for the plan; got \[Arm.*Fix: Plan\(\[Arm\('baseline'\)"),
        ({"plan": Arm("baseline")}, r"wrong kind of value for the plan; got Arm\("),
        ({"out": 3}, r"the run's folder is not usable; got 3"),
        ({"out": ""}, r"the run's folder is not usable; got ''"),
        ({"out": "~nosuchuser/x"}, r"begins with a home folder that does not exist"),
        ({"out": "/proc/nothere"}, r"the folder /proc/nothere cannot be written"),
        ({"out": "x" * 300}, r"cannot be written; got File name too long"),
        ({"beside": "runs"}, r"the places beside are not usable; got 'runs'; expected a list of folders"),
        ({"max_new_tokens": 0}, r"max_new_tokens is not usable; got 0; expected a whole number, 1 or more"),
        ({"max_new_tokens": 2.5}, r"max_new_tokens is not usable; got 2\.5"),
        ({"batch_size": 0}, r"batch size is not usable; got 0; expected auto or a number from 1"),
        ({"batch_size": None}, r"batch size is not usable; got None"),
        ({"study": 3}, r"wrong kind of value for the study; got 3"),
        ({"rule": 3}, r"wrong kind of value for the rule; got 3"),
        ({"executor": "ray"}, r"wrong kind of value for the executor; got 'ray'.*make_executor\('ray'\) gives one"),
        (
            {"thoughts": "thoughts.safetensors"},
            r"wrong kind of value for the thoughts; got 'thoughts.safe.*collect_thou",
        ),
        ({"facts": ["a"]}, r"wrong kind of value for facts; got \['a'\]"),
        ({"certificate": "yes"}, r"wrong kind of value for certificate; got 'yes'.*Fix: certificate=verify\(model"),
        ({"plam": PLAN}, r"run was called with other arguments than it has; .*'plam'.*did you mean 'plan'\?"),
        ({"plan": Plan([Arm("swap", [2])], n_donors=9)}, r"9 donors for each of \d+ problems"),
    ],
)
def test_run_refuses_what_it_cannot_use(
    options: dict[str, Any], told: str, model: LatentReasoner, problems: ProblemSet, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(ThoughtgraftError, told, run, model, problems, **({"plan": PLAN, "progress": False} | options))
    assert not list(tmp_path.iterdir())


def test_rows_and_tables_are_run_as_the_problems_they_are(model: LatentReasoner, problems: ProblemSet) -> None:
    rows = [{"question": p.question, "answer": p.gold} for p in problems]
    records = [
        run(model, given_problems, PLAN, max_new_tokens=2, progress=False)["text"].tolist()
        for given_problems in (problems, list(problems), rows, pd.DataFrame(rows))
    ]
    assert all(texts == records[0] for texts in records)


def test_a_folder_at_home_is_at_home(
    model: LatentReasoner, problems: ProblemSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = run(model, problems, PLAN, "~/x", max_new_tokens=2, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert len(load_records("~/x")) == len(load_run("~/x").records()) == len(made)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"name_or_path": None}, ModelError, r"the model is not usable; got None"),
        ({"name_or_path": ""}, ModelError, r"the model is not usable; got ''"),
        ({"name_or_path": "tiny-cody"}, ThoughtgraftError, r"no model at 'tiny-cody'.*did you mean 'tiny-codi'\?"),
        ({"num_latents": "3"}, ModelError, r"num_latents is not usable; got '3'"),
        ({"num_latents": 3.0}, ModelError, r"num_latents is not usable; got 3\.0"),
        ({"num_latents": True}, ModelError, r"num_latents is not usable; got True"),
        ({"dtype": ["float32"]}, ModelError, r"unknown dtype; got \['float32'\]"),
        ({"dtype": np.float32}, ModelError, r"unknown dtype; got <class 'numpy.float32'>"),
        ({"dtype": torch.int64}, ModelError, r"unknown dtype; got torch.int64"),
        ({"device": None}, ModelError, r"unknown device; got None"),
        ({"device": "meta"}, ModelError, r"unknown device; got 'meta'"),
        ({"protocol": ["official"]}, ModelError, r"unknown protocol; got \['official'\]"),
        ({"tokenizer": 3}, ModelError, r"wrong kind of value for the tokenizer; got 3"),
        ({"base": 3}, ModelError, r"the base is not usable; got 3"),
        ({"lora_alpha": "32"}, ModelError, r"lora_alpha is not usable; got '32'; expected a number above 0"),
        ({"prompt_suffix": 3}, ModelError, r"wrong kind of value for prompt_suffix; got 3"),
        ({"num_latent": 3}, ModelError, r"load_model was called with other arguments.*did you mean 'num_latents'\?"),
    ],
)
def test_load_model_refuses_what_it_cannot_use(options: dict[str, Any], error: Any, told: str) -> None:
    refused(error, told, load_model, **({"name_or_path": "tiny-codi"} | options))


def test_a_torch_device_is_a_device() -> None:
    assert load_model("tiny-codi", device=torch.device("cpu")).name == "tiny-codi"


def test_thoughts_are_decoded_and_read_from_what_they_are(
    model: LatentReasoner, problems: ProblemSet, thoughts: Thoughts, tmp_path: Path
) -> None:
    decode = as_users_have_it(decode_thoughts)
    refused(ModelError, r"top is not usable; got '5'", decode, model, thoughts, "5")
    refused(ModelError, r"top is not usable; got 0", decode, model, thoughts, 0)
    refused(ModelError, r"wrong kind of value for the thoughts; got ProblemSet", decode, model, problems)
    refused(ModelError, r"load_model\('tiny-codi'\) gives it", decode, "tiny-codi", thoughts)
    refused(RunError, r"the file of thoughts is not usable; got .*", Thoughts.load, "")
    refused(RunError, r"is not a readable thoughts file", Thoughts.load, tmp_path)


@pytest.mark.parametrize("call", [load_run, load_records, load_states, write_report], ids=lambda call: call.__name__)
def test_what_is_no_run_is_refused_by_all_that_read_one(call: Any, tmp_path: Path) -> None:
    for place in (None, 3, "", "a\0b"):
        refused(RunError, r"is not usable; got .*; expected text that is not empty, or a Path", call, place)
    refused(RunError, r"is not a run|there is no run or file", call, tmp_path / "nothere")
    refused(RunError, r"is not a run|holds no features", call, tmp_path)


@pytest.mark.parametrize("records", [None, "runs/x", [1], {"method": []}], ids=type)
def test_what_are_no_records_is_refused(records: Any) -> None:
    told = r"wrong kind of value for the records; got .*Fix: records of load_records\(FOLDER\), or load_run"
    refused(AnalysisError, told, analyse, records)
    refused(AnalysisError, told, compare_records, records, records)
    refused(
        AnalysisError, r"wrong kind of value for the records; got Run\(", compare_records, load_run(STORED), records
    )


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("correct", "yes", r"the column correct of the records cannot be read; got 'yes' in \d+ rows; expected true"),
        ("base_correct", 2, r"the column base_correct of the records cannot be read; got 2"),
        ("kl", "small", r"the column kl of the records cannot be read; got 'small'.*expected numbers or null"),
        ("slots", "2", r"the slots of a record cannot be read; got '2'"),
        ("pred", "x y", r"an answer in the records is no number; got 'x y'"),
    ],
)
def test_values_that_would_pass_for_failed_cells_are_refused(column: str, value: Any, told: str) -> None:
    refused(AnalysisError, told, analyse, load_records(STORED).assign(**{column: value}))


def test_what_a_run_is_asked_for_is_refused_where_it_is_not_there() -> None:
    opened, records = load_run(STORED), load_records(STORED)
    twice = pd.concat([records, records[["kl"]]], axis=1)
    refused(RunError, r"wrong kind of value for the condition; got 3.*Fix: for example: method ==", opened.records, 3)
    refused(RunError, r"the condition '\(\(\(.*\.\.\. cannot be used", opened.records, "(" * 5_000)
    refused(AnalysisError, r"unknown figure; got \['impact'\]", opened.figure, ["impact"])
    refused(AnalysisError, r"records have a column twice; got 'kl'", analyse, twice)
    refused(AnalysisError, r"wrong kind of value for the rule; got 'x'", Known, rule="x")
    refused(ProblemError, r"problems are wanted, not their name", analyse, records, "arithmetic:test")
    refused(AnalysisError, r"slots are not usable; got 3", Known, dead_slots=3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "tiny-codi"}, r"wrong kind of value for the model; got 'tiny-codi'.*load_model"),
        ({"problems": "arithmetic"}, r"problems are wanted, not their name"),
        ({"batch_size": 0}, r"batch size is not usable; got 0"),
        ({"max_new_tokens": 0}, r"max_new_tokens is not usable; got 0"),
        ({"seed": -1}, r"the seed is not usable; got -1"),
        ({"limit": 3}, r"evaluate was called with other arguments than it has"),
    ],
)
def test_evaluate_refuses_what_it_cannot_use(
    options: dict[str, Any], told: str, model: LatentReasoner, problems: ProblemSet
) -> None:
    refused(ThoughtgraftError, told, evaluate, **({"model": model, "problems": problems, "progress": False} | options))


def test_compare_runs_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    refused(RunError, r"the run's folder is not usable; got 3", compare_runs, STORED, 3)
    refused(RunError, r"is not a run; expected a folder with run\.json", compare_runs, STORED, tmp_path)
    refused(AnalysisError, r"wrong kind of value for force; got 'yes'", compare_runs, STORED, STORED, force="yes")
    refused(
        AnalysisError, r"compare_runs was called with other arguments.*did you mean 'force'", compare_runs, forced=1
    )
    (tmp_path / "features").mkdir()
    (tmp_path / "run.json").write_text((STORED / "run.json").read_text())
    refused(RunError, r"keeps what layers held, not generations.*load_states", compare_runs, STORED, tmp_path)
    found = compare_runs(STORED, load_run(STORED))
    assert set(found.table.design) == {"paired"} and (found.table.difference_pp == 0).all()
    assert found.differences == () and found.unfinished == [] and 0 < len(found.main) < len(found.table)


def test_seeds_of_analyses_are_seeds() -> None:
    refused(RunError, r"the seed is not usable; got 'a'", load_run, STORED, seed="a")
    refused(AnalysisError, r"the seed is not usable; got -1", analyse, load_records(STORED), seed=-1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"engine": None}, r"unknown engine; got None; expected local, ray"),
        ({"engine": "Local"}, r"did you mean 'local'\?"),
        ({"engine": "local", "workers": 2}, r"the local engine has no workers; got --workers"),
        ({"engine": "ray", "workers": 0}, r"the number of workers is not usable; got 0"),
        ({"engine": "ray", "workers": "2"}, r"the number of workers is not usable; got '2'"),
        ({"engine": "ray", "cpus_per_worker": 0}, r"the number of CPUs of each worker is not usable; got 0"),
        ({"engine": "ray", "address": 3}, r"wrong kind of value for the Ray address; got 3"),
        ({"engine": "ray", "address": "here"}, r"a Ray address cannot be used; got 'here'; expected auto or HOST:PORT"),
    ],
)
def test_make_executor_refuses_what_it_cannot_use(options: dict[str, Any], told: str) -> None:
    pytest.importorskip("ray")
    refused((PlanError, RunError), told, make_executor, **options)  # type: ignore[arg-type]


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([np.int64(1), np.array([1.0]), torch.tensor(1.0), PLAN, STORED, Arm, object(), pd.DataFrame()]),
)
MADE_BY_US = ("Comparison", "Edit", "EditContext", "Evaluation", "Grader", "Look", "Run", "States", "Thoughts")
PUBLIC = [name for name in thoughtgraft.__all__ if name not in (*MADE_BY_US, "load_model")]


@pytest.mark.parametrize("name", [*PUBLIC, "States.of"])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_junk_in_every_argument_of_every_public_name_is_refused_by_an_error_of_ours(name: str, data: Any) -> None:
    call = thoughtgraft.States.of if name == "States.of" else getattr(thoughtgraft, name)
    call = as_users_have_it(call) if name == "decode_thoughts" else call
    if "given" in inspect.signature(call).parameters:
        refused(PlanError, f"{name} was called with other arguments than it has", call, 1)
        return
    names = [parameter for parameter in inspect.signature(call).parameters if parameter not in ("self", "out")]
    options = {key: data.draw(JUNK, label=key) for key in data.draw(st.lists(st.sampled_from(names), unique=True))}
    try:
        call(**options)
    except ThoughtgraftError as error:
        assert str(error).strip()
