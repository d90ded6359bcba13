"""Run a plan, or keep features: think once, expand to cells, run what is not stored yet, store."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from thoughtgraft.arguments import answers_for_calls, items, need, path_of, shown
from thoughtgraft.edits.plan import Cell, Plan
from thoughtgraft.engine.cells import Finished, Work, arm_of, try_edits
from thoughtgraft.engine.collect import answer_identity, answer_limit, encode, think_clean_runs
from thoughtgraft.engine.executors import Executor, LocalExecutor
from thoughtgraft.engine.rows import check_sites
from thoughtgraft.engine.states import state_writer, store_states
from thoughtgraft.errors import PlanError, RunError
from thoughtgraft.files import write_atomic
from thoughtgraft.models.live import admitted
from thoughtgraft.models.load import untrained_twin
from thoughtgraft.models.reasoner import LatentReasoner, as_model
from thoughtgraft.records.earlier import find_looks
from thoughtgraft.records.schema import rows_to_table
from thoughtgraft.records.shards import read_frame, table_to_frame
from thoughtgraft.records.spec import (
    CERTIFICATE_FILE,
    DECISION_FILE,
    FEATURES_FOLDER,
    PROBLEMS_FILE,
    SPEC_FILE,
    THOUGHTS_FILE,
    UNTRAINED_FOLDER,
    RuleFacts,
    RunSpec,
    collect_provenance,
    without_home,
)
from thoughtgraft.records.states import count_stored
from thoughtgraft.records.store import RunStore, check_folder
from thoughtgraft.tasks.files import problem_table, with_labels
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd


@answers_for_calls(PlanError)
def run(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    out: str | Path | None = None,
    *,
    study: str = "custom",
    thoughts: Thoughts | None = None,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    identity: str | None = None,
    keep_logits: bool = False,
    progress: bool = True,
    facts: Mapping[str, Any] | None = None,
    design: Mapping[str, Any] | None = None,
    rule: str | None = None,
    certificate: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    watch: Callable[[], None] | None = None,
    stop: Callable[[], bool] | None = None,
    beside: Sequence[str | Path] = (),
    options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Run every cell of a plan and return its records.

    Args:
        model: The model.
        problems: Hosts and donors.
        plan: What to run.
        out: The run's folder; the same call continues it. None keeps everything in memory.
        study: What the run is called in run.json.
        thoughts: The model's clean run on these problems, where it was collected before; None has the model think.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        identity: What you call the hooks and edits that the loaded model carries. The name enters every record and
            page, and with a checksum of what was found the model's identity; without one such a model is refused.
        keep_logits: Add a column `first_logits`, the first answer token's logits [V] as numpy arrays; in memory only.
        progress: Show progress bars.
        facts: More facts for run.json's provenance.
        design: More facts about the design, put beside the plan in run.json; not part of the plan's hash.
        rule: The decision rule as text, fixed before the run: it is kept as decision.json and its hash in run.json.
        certificate: What `verify` found, kept as certificate.json before the first cell.
        executor: Where the cells run; None is this process. It does not change results.
        watch: Called now and then while the run's folder grows, to look at it.
        stop: Asked between packs of cells, when all earlier ones are stored: whether to end with KeyboardInterrupt.
        beside: Run folders, or folders of runs, where earlier looks at these problems are looked for too; those that
            lie beside `out` always are, and run.json keeps the count.
        options: What the study was asked, which run.json keeps.

    Returns:
        One row per cell in the plan's order, with the columns of `records.RECORD_SCHEMA`; a generation whose donor
        serves two strata has a row for each. A cell whose edit fails on it (it raises, gives NaN or infinity, or needs
        a mean of others where there are none) has `error` and no outcome; so has one whose edit makes the model
        overflow. A continued run does not run it again.

    Raises:
        PlanError: A slot, donor or host that does not exist, no problems, an edit of your own that fails wherever it is
            tried, or one without an identity where its cells are stored.
        RunError: The folder holds another run or cannot be written, or `thoughts` are of another model or set.
        ModelError: A question does not fit the model's context, or the model is not as it was loaded and no name is
            given.
    """
    model, problems = as_model(model), as_problems(problems)
    fix = "Plan([Arm('baseline'), Arm('swap', [2])], n_donors=5), for example"
    plan = need(plan, Plan, "the plan", PlanError, expected="a Plan", fix=fix)
    folder = None if out is None else path_of(out, "the run's folder")
    if folder is not None:
        plan.require_identities()
        check_folder(folder)
    places = items(beside, "the places beside", RunError, expected="a list of folders", fix="beside=['runs/earlier']")
    beside = [path_of(place, "a place beside") for place in places]
    max_new_tokens = answer_limit(model, max_new_tokens)
    _check_extras(study, rule, thoughts, executor, facts=facts, design=design, certificate=certificate)
    if len(problems) == 0:
        raise PlanError("there are no problems to run", fix="load at least one problem")
    if keep_logits and out is not None:
        raise PlanError("logits are not stored in run folders", fix="use keep_logits=True without out")
    model = admitted(model, identity)
    check_sites(model, plan.arms)
    made_by = answer_identity(model, max_new_tokens, problems.grader)
    prompts = encode(model, problems)
    pads = [p.pad for p in prompts] if model.protocol.pads_visible else None

    if thoughts is not None:
        thoughts.require(made_by, problems.content_hash)

    def think() -> Thoughts:
        path = None if folder is None else folder / THOUGHTS_FILE
        if thoughts is None and path is not None and path.exists():
            return Thoughts.load(path, identity=made_by, problem_hash=problems.content_hash)
        return thoughts or think_clean_runs(
            model, problems, max_new_tokens, batch_size=batch_size, progress=progress, stop=stop
        )

    # Which problems are hosts may hang on the clean answers; then they come before the plan.
    before = think() if plan.only_correct else None
    cells = plan.cells(problems, made_by, pads, None if before is None else before.correct)
    if folder is None or not (folder / SPEC_FILE).exists():  # else they worked when the run began
        try_edits(model, problems, prompts, cells)
    spec = make_spec(
        model, problems, plan, cells, study=study, max_new_tokens=max_new_tokens, facts=facts, design=design, rule=rule
    ).model_copy(update={"options": options})
    if folder is not None:
        spec = with_looks(spec, folder, *roles(problems, cells), beside)
    store = None if folder is None else RunStore.create(folder, spec)
    with store or nullcontext():
        if store:
            if progress:
                tell_looks(store.spec)
            store.heartbeat(0, len(problems), "clean thoughts")
        clean = think() if before is None else before
        if store:
            _keep(store, clean, problems, rule)
            if certificate is not None:
                store.write_json(CERTIFICATE_FILE, certificate)
            if watch:
                watch()
        stored = store.stored_cells() if store else set()
        work = Work(
            problems=problems,
            prompts=prompts,
            thoughts=clean,
            run_id=spec.run_id,
            seed=plan.seed,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            keep_logits=keep_logits,
        )
        kept: list[dict[str, Any]] = []
        logits: dict[str, Any] = {}
        before_now = sum(cell.record in stored for cell in cells)
        bar = tqdm(total=len(cells), initial=before_now, desc="interventions", unit="cell", disable=not progress)
        done = before_now
        with bar, closing((executor or LocalExecutor()).run(model, work, cells, stored)) as parts:
            for part in chain([Finished([], [])], parts):
                if store and part.cells:
                    store.write_unit(_unit_name(part.cells), part.rows)
                done += len(part.cells)
                if store:
                    store.heartbeat(done, len(cells), "interventions")
                kept += [] if store else part.rows
                if part.logits is not None:
                    wide = torch.promote_types(part.logits.dtype, torch.float32)
                    numbers = zip(part.cells, part.rows, part.logits.to(wide).numpy(), strict=True)
                    logits.update({cell.key: found for cell, row, found in numbers if row.get("error") is None})
                bar.update(len(part.cells))
                if watch and store:
                    watch()
                if stop is not None and stop():
                    raise KeyboardInterrupt
        if store:
            store.heartbeat(len(cells), len(cells), "finished")
        frame = store.frame() if store else table_to_frame(rows_to_table(kept))
    place = {record: i for i, record in enumerate(dict.fromkeys(cell.record for cell in cells))}
    strata = frame["donor_stratum"].astype(object).where(frame["donor_stratum"].notna(), None)
    order = sorted(range(len(frame)), key=[place[r] for r in zip(frame["cell"], strata, strict=True)].__getitem__)
    frame = frame.iloc[order].reset_index(drop=True)
    if keep_logits:
        frame["first_logits"] = frame["cell"].map(logits)
    return frame


def _check_extras(study: Any, rule: Any, thoughts: Any, executor: Any, **mappings: Any) -> None:
    """Refuse what has not the kind that it should have, before anything is computed."""
    need(study, str, "the study", RunError, expected="its name as text")
    if rule is not None:
        need(rule, str, "the rule", RunError, expected="its text", fix="rule=RULE.to_json(), for example")
    if thoughts is not None:
        fix = "collect_thoughts(model, problems) gives them"
        need(thoughts, Thoughts, "the thoughts", RunError, expected="Thoughts of these problems", fix=fix)
    if executor is not None and not callable(getattr(executor, "run", None)):
        fix = "thoughtgraft.engine.executors.make_executor('ray') gives one"
        what = "wrong kind of value for the executor"
        raise PlanError(what, got=shown(executor), expected="an Executor or None", fix=fix)
    for name, value in mappings.items():
        if value is not None:
            found = "certificate=verify(model, problems).to_json()" if name == "certificate" else None
            need(value, Mapping, name, RunError, expected="a mapping", fix=found)  # type: ignore[type-abstract]


def make_spec(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: Plan,
    cells: Sequence[Cell],
    *,
    study: str = "custom",
    max_new_tokens: int | None = None,
    facts: Mapping[str, Any] | None = None,
    design: Mapping[str, Any] | None = None,
    rule: str | None = None,
) -> RunSpec:
    """What run.json says of a run."""
    provenance = collect_provenance() | {"threads": torch.get_num_threads()} | dict(facts or {})
    provenance |= model.origin
    if model.device.type == "cuda":
        provenance["accelerator"] = torch.cuda.get_device_name(model.device)
    counts = [arm.columns | {"n": n} for arm, n in Counter(map(arm_of, cells)).items()]
    flaw = {"protocol_flaw": model.protocol.flaw} if model.protocol.flaw else {}
    return RunSpec(
        study=study,
        model=without_home(model.full_name),
        model_hash=model.model_hash,
        protocol=model.protocol.name,
        num_latents=model.num_latents,
        problems=without_home(problems.name),
        problem_hash=problems.content_hash,
        plan_hash=plan.plan_hash,
        plan=plan.describe() | {"cells_per_arm": counts} | flaw | dict(design or {}),
        seed=plan.seed,
        dtype=model.dtype_name,
        device=model.device.type,
        n_hosts=len({cell.host for cell in cells}),
        n_donors=plan.n_donors,
        n_cells=len(cells),
        decision_hash=None if rule is None else hashlib.sha256(rule.encode()).hexdigest()[:16],
        max_new_tokens=answer_limit(model, max_new_tokens),
        task=problems.grader.name,
        model_identity=model.identity,
        rule=None if rule is None else RuleFacts.of_text(rule),
        versions=provenance.pop("versions", {}),
        provenance=provenance,
    )


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


def _keep(store: RunStore, thoughts: Thoughts, problems: ProblemSet, rule: str | None) -> None:
    """Put what the cells rest on into the run's folder, before the first of them."""
    if not (store.path / THOUGHTS_FILE).exists():
        thoughts.save(store.path / THOUGHTS_FILE)
    if not (store.path / PROBLEMS_FILE).exists():
        store.write_table(PROBLEMS_FILE, problem_table(problems))
    elif (stored := list(read_frame(store.path / PROBLEMS_FILE)["id"])) != [problem.id for problem in problems]:
        now, then = next(pair for pair in zip((p.id for p in problems), stored, strict=False) if pair[0] != pair[1])
        raise RunError(
            f"the problems of {store.path} have other ids there, so that one problem would count as two",
            got=repr(now),
            expected=repr(then),
            fix="give the file of problems its old ids, or use --out another folder",
        )
    file = store.path / DECISION_FILE
    if rule is not None and not file.exists():
        write_atomic(file, rule.encode())
    elif rule is not None and file.read_bytes() != rule.encode():
        raise RunError(
            f"{file} is not the rule that the run began with",
            got="another text",
            expected=f"the rule with the hash {store.spec.decision_hash}",
            fix="restore it, or delete it to have it written again",
        )


def _unit_name(cells: Sequence[Cell]) -> str:
    """A pack's name: a hash of what its records are known by."""
    names = sorted(f"{cell.key} {cell.stratum or ''}" for cell in cells)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:20]


UNTRAINED_SEED = 0


def run_features(
    model: LatentReasoner,
    problems: ProblemSet,
    labels: pd.DataFrame,
    layers: Sequence[int],
    out: str | Path,
    *,
    study: str,
    storage: str,
    seed: int = 0,
    untrained: bool = True,
    design: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    progress: bool = True,
    beside: Sequence[str | Path] = (),
    identity: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> RunSpec:
    """Make or continue such a run.

    The folder then holds `thoughts.safetensors`, `problems.parquet` (the table of problems with the columns of
    `labels`, and base_pred and base_correct of the unedited model), `features/` and `features-untrained/`.

    Args:
        model: The model.
        problems: N problems.
        labels: A table with a column `id` and a row for each problem; its columns replace those of the same name.
        layers: Blocks, 0-based.
        out: The run's folder.
        study: What the run is called in run.json.
        storage: What features are kept as: bfloat16, float16 or float32.
        seed: What the problems were drawn with.
        untrained: Also extract the features of an untrained model of the same shape.
        design: How the problems were chosen; part of the run's identity.
        facts: More facts for run.json's provenance.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        progress: Show progress bars.
        beside: As `run` has it.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.
        options: What the study was asked, which run.json keeps.

    Returns:
        What run.json says.

    Raises:
        RunError: The folder holds another run or cannot be written.
        ModelError: A layer or type that there is not, a question that does not fit the model's context, or a model
            that is not as it was loaded without a name for that.
    """
    model = admitted(model, identity)
    out = Path(out)
    # Before the folder: a wrong layer or type, or a question that is too long, is an error that leaves nothing behind.
    encode(model, problems)
    writer = state_writer(model, problems, layers, out / FEATURES_FOLDER, storage)
    plan = {
        "features": {"layers": list(layers), "positions": list(writer.positions), "storage": storage},
        "untrained_seed": UNTRAINED_SEED if untrained else None,
        **(design or {}),
    }
    limit = answer_limit(model, max_new_tokens)
    spec = _spec(model, problems, plan, study=study, seed=seed, limit=limit, untrained=untrained, facts=facts)
    spec = with_looks(spec.model_copy(update={"options": options}), out, problems, (), beside)
    with RunStore.create(out, spec) as store:
        if progress:
            tell_looks(store.spec)
        thoughts = _thoughts(model, problems, out / THOUGHTS_FILE, batch_size, limit, progress)
        if not (out / PROBLEMS_FILE).exists():
            table = with_labels(problem_table(problems), labels)
            answers: dict[str, Any] = {"base_pred": list(thoughts.pred), "base_correct": list(thoughts.correct)}
            store.write_table(PROBLEMS_FILE, table.assign(**answers))

        def extract(one: LatentReasoner, folder: str, before: int) -> None:
            store_states(
                one,
                problems,
                state_writer(one, problems, layers, out / folder, storage),
                batch_size=batch_size,
                progress=progress,
                beat=lambda done, _: store.heartbeat(before + done, spec.n_cells, f"features of {one.name}"),
            )

        extract(model, FEATURES_FOLDER, 0)
        # Making the twin of a large model takes longer than looking whether it is still needed.
        if untrained and count_stored(out, [UNTRAINED_FOLDER]) < len(problems):
            extract(untrained_twin(model, UNTRAINED_SEED), UNTRAINED_FOLDER, len(problems))
        store.heartbeat(spec.n_cells, spec.n_cells, "finished")
    return spec


def _spec(
    model: LatentReasoner,
    problems: ProblemSet,
    plan: dict[str, Any],
    *,
    study: str,
    seed: int,
    limit: int,
    untrained: bool,
    facts: Mapping[str, Any] | None,
) -> RunSpec:
    provenance = collect_provenance() | dict(facts or {})
    provenance |= model.origin
    return RunSpec(
        study=study,
        model=model.full_name,
        model_hash=model.model_hash,
        protocol=model.protocol.name,
        num_latents=model.num_latents,
        problems=problems.name,
        problem_hash=problems.content_hash,
        plan_hash=hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16],
        plan=plan,
        seed=seed,
        dtype=model.dtype_name,
        device=model.device.type,
        n_hosts=len(problems),
        n_donors=0,
        n_cells=len(problems) * (1 + untrained),
        max_new_tokens=limit,
        task=problems.grader.name,
        model_identity=model.identity,
        versions=provenance.pop("versions", {}),
        provenance=provenance,
    )


def _thoughts(
    model: LatentReasoner,
    problems: ProblemSet,
    file: Path,
    batch_size: int | str,
    max_new_tokens: int,
    progress: bool,
) -> Thoughts:
    if file.exists():
        made_by = answer_identity(model, max_new_tokens, problems.grader)
        return Thoughts.load(file, identity=made_by, problem_hash=problems.content_hash)
    thoughts = think_clean_runs(model, problems, max_new_tokens, batch_size=batch_size, progress=progress)
    thoughts.save(file)
    return thoughts
