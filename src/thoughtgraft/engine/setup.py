"""How a run is set up beside what it runs, and what run.json says of it."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from thoughtgraft.arguments import items, need, path_of, shown
from thoughtgraft.edits.plan import Cell, Plan
from thoughtgraft.engine.cells import arm_of
from thoughtgraft.engine.collect import answer_limit
from thoughtgraft.engine.executors import Executor
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.earlier import find_looks
from thoughtgraft.records.spec import SPEC_FILE, RuleFacts, RunSpec, collect_provenance, without_home
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.thoughts import Thoughts


@dataclass(frozen=True)
class Setup:
    """How a run is set up beside what it runs: the further arguments of `run`; in a notebook most are left out.

    Attributes:
        study: What the run is called in run.json.
        identity: What you call the hooks and edits that the loaded model carries. The name enters every record and
            page, and with a checksum of what was found the model's identity; without one such a model is refused.
        thoughts: The model's clean run on these problems, where it was collected before; None has the model think.
        keep_logits: Add a column `first_logits`, the first answer token's logits [V] as numpy arrays; in memory only.
        executor: Where the cells run; None is this process. It does not change results.
        beside: Run folders, or folders of runs, where earlier looks at these problems are looked for too; those that
            lie beside `out` always are, and run.json keeps the count.
        rule: The decision rule as text, fixed before the run: it is kept as decision.json and its hash in run.json.
        certificate: What `verify` found, as JSON has it, kept as certificate.json before the first cell.
        design: More facts about the design, put beside the plan in run.json; not part of the plan's hash.
        options: What the study was asked, which run.json keeps.
        facts: More facts for run.json's provenance.
        watch: Called now and then while the run's folder grows, to look at it.
        stop: Asked between packs of cells, when all earlier ones are stored: whether to end with KeyboardInterrupt.
    """

    study: str = "custom"
    identity: str | None = None
    thoughts: Thoughts | None = None
    keep_logits: bool = False
    executor: Executor | None = None
    beside: Sequence[str | Path] = ()
    rule: str | None = None
    certificate: Mapping[str, Any] | None = None
    design: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    watch: Callable[[], None] | None = None
    stop: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        need(self.study, str, "the study", RunError, expected="its name as text")
        if self.rule is not None:
            need(self.rule, str, "the rule", RunError, expected="its text", fix="rule=RULE.to_json(), for example")
        if self.thoughts is not None:
            fix = "collect_thoughts(model, problems) gives them"
            need(self.thoughts, Thoughts, "the thoughts", RunError, expected="Thoughts of these problems", fix=fix)
        if self.executor is not None and not callable(getattr(self.executor, "run", None)):
            fix = "make_executor('ray') gives one"
            what = "wrong kind of value for the executor"
            raise PlanError(what, got=shown(self.executor), expected="an Executor or None", fix=fix)
        for name in ("watch", "stop"):
            if (given := getattr(self, name)) is not None and not callable(given):
                raise PlanError(f"{name} is a function", got=shown(given), expected=f"{name}(), or None")
        for name in ("facts", "design", "certificate", "options"):
            value = getattr(self, name)
            if value is None and name in ("facts", "design"):
                object.__setattr__(self, name, {})
            elif value is not None:
                way = "certificate=verify(model, problems).to_json()" if name == "certificate" else None
                found = need(value, Mapping, name, RunError, expected="a mapping", fix=way)  # type: ignore[type-abstract]
                object.__setattr__(self, name, dict(found))
        expected, fix = "a list of folders", "beside=['runs/earlier']"
        places = items(self.beside, "the places beside", RunError, expected=expected, fix=fix)
        object.__setattr__(self, "beside", tuple(path_of(place, "a place beside") for place in places))


def make_spec(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    cells: Sequence[Cell],
    max_new_tokens: int | None = None,
    setup: Setup | None = None,
) -> RunSpec:
    """What run.json says of a run."""
    setup = setup or Setup()
    provenance = provenance_of(model, setup) | {"threads": torch.get_num_threads()}
    if model.device.type == "cuda":
        provenance["accelerator"] = torch.cuda.get_device_name(model.device)
    counts = [arm.columns | {"n": n} for arm, n in Counter(map(arm_of, cells)).items()]
    flaw = {"protocol_flaw": model.protocol.flaw} if model.protocol.flaw else {}
    return RunSpec(
        study=setup.study,
        model=without_home(model.full_name),
        model_hash=model.model_hash,
        protocol=model.protocol.name,
        num_latents=model.num_latents,
        problems=without_home(problems.name),
        problem_hash=problems.content_hash,
        plan_hash=plan.plan_hash,
        plan=plan.describe() | {"cells_per_arm": counts} | flaw | dict(setup.design),
        seed=plan.seed,
        dtype=model.dtype_name,
        device=model.device.type,
        n_hosts=len({cell.host for cell in cells}),
        n_donors=plan.n_donors,
        n_cells=len(cells),
        decision_hash=None if setup.rule is None else hashlib.sha256(setup.rule.encode()).hexdigest()[:16],
        max_new_tokens=answer_limit(model, max_new_tokens),
        task=problems.grader.name,
        model_identity=model.identity,
        options=None if setup.options is None else dict(setup.options),
        rule=None if setup.rule is None else RuleFacts.of_text(setup.rule),
        versions=provenance.pop("versions", {}),
        provenance=provenance,
    )


def provenance_of(model: LatentReasoner, setup: Setup) -> dict[str, Any]:
    """When, where, with which packages and from which files a run is made."""
    return collect_provenance() | dict(setup.facts) | model.origin


def with_looks(
    spec: RunSpec, out: str | Path, hosts: Sequence[Problem], donors: Sequence[Problem], beside: Sequence[str | Path]
) -> RunSpec:
    """The spec of a new run with what was looked at before; a run that goes on keeps what it noted when it began.

    Args:
        spec: What run.json will say.
        out: The run's folder.
        hosts: Its hosts.
        donors: Its donors.
        beside: Other places to look in than the folder that `out` lies in.
    """
    if (Path(out) / SPEC_FILE).exists():
        return spec
    mine, givers = ([(problem.question, problem.gold) for problem in some] for some in (hosts, donors))
    looks = find_looks(Path(out), spec, mine, givers, [Path(place) for place in beside])
    return spec.model_copy(update={"looks": looks})


def roles(problems: ProblemSet, cells: Sequence[Cell]) -> tuple[list[Problem], list[Problem]]:
    """The hosts and the donors of these cells, each once; a problem put into itself is no donor."""
    hosts = dict.fromkeys(cell.host for cell in cells)
    donors = dict.fromkeys(cell.donor for cell in cells if cell.donor is not None and cell.donor != cell.host)
    return [problems[i] for i in hosts], [problems[i] for i in donors]


def tell_looks(spec: RunSpec) -> None:
    """Say on stderr what of a run had been looked at before it began."""
    for line in spec.looks.lines(spec.run_id) if spec.looks else ():
        tqdm.write(line, file=sys.stderr)
