"""A run that keeps what a model's layers held, and generates nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.arguments import answers_for_calls, with_fields_of
from thoughtgraft.engine.collect import (
    answer_identity,
    answer_limit,
    encode,
    think_clean_runs,
)
from thoughtgraft.engine.setup import Setup, provenance_of, tell_looks, with_looks
from thoughtgraft.engine.states import state_writer, store_states
from thoughtgraft.errors import RunError
from thoughtgraft.models.live import admitted
from thoughtgraft.models.load import untrained_twin
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.spec import (
    CERTIFICATE_FILE,
    FEATURES_FOLDER,
    PROBLEMS_FILE,
    THOUGHTS_FILE,
    UNTRAINED_FOLDER,
    RunSpec,
)
from thoughtgraft.records.states import count_stored
from thoughtgraft.records.store import RunStore
from thoughtgraft.tasks.files import problem_table, with_labels
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Keep:
    """What is kept of a model's clean runs.

    Attributes:
        labels: A table with a column `id` and a row for each problem; its columns replace those of the same name.
        layers: Blocks, 0-based.
        storage: What features are kept as: bfloat16, float16 or float32.
        seed: What the problems were drawn with.
        untrained: Also the features of an untrained model of the same shape.
    """

    labels: pd.DataFrame
    layers: Sequence[int]
    storage: str
    seed: int = 0
    untrained: bool = True


@answers_for_calls(RunError)
@with_fields_of(Setup)
def run_features(
    model: LatentReasoner,
    problems: ProblemSet,
    keep: Keep,
    out: str | Path,
    *,
    batch_size: int | str = "auto",
    max_new_tokens: int | None = None,
    progress: bool = True,
    **setup: Any,
) -> RunSpec:
    """Make or continue such a run.

    The folder then holds `thoughts.safetensors`, `problems.parquet` (the table of problems with the columns of
    `keep.labels`, and base_pred and base_correct of the unedited model), `features/` and `features-untrained/`.

    Args:
        model: The model.
        problems: N problems.
        keep: What is kept.
        out: The run's folder.
        batch_size: Rows at once, or `auto`; it does not change results.
        max_new_tokens: The longest answer; None takes the model's.
        progress: Show progress bars.
        setup: As `run` has it (`Setup`); `design` says how the problems were chosen, and is part of the run's identity.

    Returns:
        What run.json says.

    Raises:
        RunError: The folder holds another run or cannot be written.
        ModelError: A layer or type that there is not, a question that does not fit the model's context, or a model
            that is not as it was loaded without a name for that.
    """
    how = Setup(**setup)
    model, out = admitted(model, how.identity), Path(out)
    # Before the folder: a wrong layer or type, or a question that is too long, is an error that leaves nothing behind.
    encode(model, problems)
    positions = state_writer(model, problems, keep.layers, out / FEATURES_FOLDER, keep.storage).positions
    limit = answer_limit(model, max_new_tokens)
    spec = with_looks(_spec(model, problems, keep, positions, limit, how), out, problems, (), how.beside)
    with RunStore.create(out, spec) as store:
        if progress:
            tell_looks(store.spec)
        thoughts = _thoughts(model, problems, out / THOUGHTS_FILE, batch_size, limit, progress)
        if not (out / PROBLEMS_FILE).exists():
            table = with_labels(problem_table(problems), keep.labels)
            answers: dict[str, Any] = {"base_pred": list(thoughts.pred), "base_correct": list(thoughts.correct)}
            store.write_table(PROBLEMS_FILE, table.assign(**answers))
        if how.certificate is not None:
            store.write_json(CERTIFICATE_FILE, how.certificate)

        _extract(model, problems, keep, store, batch_size, progress)
        store.heartbeat(spec.n_cells, spec.n_cells, "finished")
    return spec


def _extract(
    model: LatentReasoner, problems: ProblemSet, keep: Keep, store: RunStore, batch_size: int | str, progress: bool
) -> None:
    """Store what is missing of the model's states, and of its untrained twin's."""

    def extract(one: LatentReasoner, folder: str, before: int) -> None:
        store_states(
            one,
            problems,
            state_writer(one, problems, keep.layers, store.path / folder, keep.storage),
            batch_size=batch_size,
            progress=progress,
            beat=lambda done, _: store.heartbeat(before + done, store.spec.n_cells, f"features of {one.name}"),
        )

    extract(model, FEATURES_FOLDER, 0)
    # Making the twin of a large model takes longer than looking whether it is still needed.
    if keep.untrained and count_stored(store.path, [UNTRAINED_FOLDER]) < len(problems):
        extract(untrained_twin(model, UNTRAINED_SEED), UNTRAINED_FOLDER, len(problems))


def _spec(
    model: LatentReasoner, problems: ProblemSet, keep: Keep, positions: Sequence[str], limit: int, setup: Setup
) -> RunSpec:
    provenance = provenance_of(model, setup)
    plan = {
        "features": {"layers": list(keep.layers), "positions": list(positions), "storage": keep.storage},
        "untrained_seed": UNTRAINED_SEED if keep.untrained else None,
        **setup.design,
    }
    return RunSpec(
        study=setup.study,
        model=model.full_name,
        model_hash=model.model_hash,
        protocol=model.protocol.name,
        num_latents=model.num_latents,
        problems=problems.name,
        problem_hash=problems.content_hash,
        plan_hash=hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16],
        plan=plan,
        seed=keep.seed,
        dtype=model.dtype_name,
        device=model.device.type,
        n_hosts=len(problems),
        n_donors=0,
        n_cells=len(problems) * (1 + keep.untrained),
        max_new_tokens=limit,
        task=problems.grader.name,
        model_identity=model.identity,
        options=None if setup.options is None else dict(setup.options),
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
