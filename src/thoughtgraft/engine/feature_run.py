"""A run that keeps features: clean answers, labels, and what the layers of model and untrained twin held."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.engine.collect import answer_identity, answer_limit, encode, think_clean_runs
from thoughtgraft.engine.features import extract_features, feature_writer
from thoughtgraft.engine.run import tell_looks, with_looks
from thoughtgraft.models.live import admitted
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.models.untrained import untrained_twin
from thoughtgraft.problems import ProblemSet
from thoughtgraft.problems.answers import TASK
from thoughtgraft.problems.table import problem_table, with_labels
from thoughtgraft.records import RunSpec, RunStore
from thoughtgraft.records.features import count_stored
from thoughtgraft.records.layout import FEATURES_FOLDER, PROBLEMS_FILE, THOUGHTS_FILE, UNTRAINED_FOLDER
from thoughtgraft.records.provenance import collect_provenance
from thoughtgraft.thoughts import Thoughts

if TYPE_CHECKING:
    import pandas as pd

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
    writer = feature_writer(model, problems, layers, out / FEATURES_FOLDER, storage)
    plan = {
        "features": {"layers": list(layers), "positions": list(writer.positions), "storage": storage},
        "untrained_seed": UNTRAINED_SEED if untrained else None,
        **(design or {}),
    }
    limit = answer_limit(model, max_new_tokens)
    spec = _spec(model, problems, plan, study=study, seed=seed, limit=limit, untrained=untrained, facts=facts)
    spec = with_looks(spec, out, problems, (), beside)
    with RunStore.create(out, spec) as store:
        if progress:
            tell_looks(store.spec)
        thoughts = _thoughts(model, problems, out / THOUGHTS_FILE, batch_size, limit, progress)
        if not (out / PROBLEMS_FILE).exists():
            table = with_labels(problem_table(problems), labels)
            answers: dict[str, Any] = {"base_pred": list(thoughts.pred), "base_correct": list(thoughts.correct)}
            store.write_table(PROBLEMS_FILE, table.assign(**answers))

        def extract(one: LatentReasoner, folder: str, before: int) -> None:
            extract_features(
                one,
                problems,
                feature_writer(one, problems, layers, out / folder, storage),
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
        task=TASK,
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
        made_by = answer_identity(model, max_new_tokens)
        return Thoughts.load(file, identity=made_by, problem_hash=problems.content_hash)
    thoughts = think_clean_runs(model, problems, max_new_tokens, batch_size=batch_size, progress=progress)
    thoughts.save(file)
    return thoughts
