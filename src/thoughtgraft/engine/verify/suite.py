"""`verify`: which checks make a certificate, and in which order they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from thoughtgraft.arguments import answers_for_calls, choice, whole
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import encode
from thoughtgraft.engine.verify import batches, edits
from thoughtgraft.engine.verify.bench import HALF, Bench, in_float32
from thoughtgraft.engine.verify.oracle import conformance
from thoughtgraft.engine.verify.records import CHECKS, Records
from thoughtgraft.engine.verify.trial import make_trial, standard_plan
from thoughtgraft.engine.verify.weights import fingerprint, weights
from thoughtgraft.errors import PlanError
from thoughtgraft.files import read_json
from thoughtgraft.models.checkpoint.audit import Fingerprint, read_fingerprint
from thoughtgraft.models.live import admitted
from thoughtgraft.models.names import model_folder
from thoughtgraft.models.precision import with_ieee_products
from thoughtgraft.models.reasoner import LatentReasoner, as_model
from thoughtgraft.records.certificate import Certificate, Check
from thoughtgraft.records.spec import CERTIFICATE_FILE
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import ProblemSet

Level = Literal["core", "full"]
LEVELS: tuple[Level, ...] = ("core", "full")
CERTIFY = ("auto", "full", "off")
"""How a run is certified: by the core checks, by all, or not at all."""

_CORE: tuple[Callable[[Bench], Check], ...] = (
    edits.thoughts_fed,
    edits.edits_arrive,
    edits.null_edit,
    edits.self_swap,
    edits.can_fail,
    edits.no_dead_slot,
    edits.donor_swaps,
    edits.transplant,
    batches.batch,
    batches.order,
    batches.padding,
    batches.fast_equals_reference,
    batches.determinism,
)
_WITHOUT_THOUGHTS = (
    edits.thoughts_fed,
    batches.batch,
    batches.order,
    batches.padding,
    batches.fast_equals_reference,
    batches.determinism,
)
"""What can be asked of a model that is fed no thought."""

_PROBLEMS = 6
"""On the bench."""

_FULL: tuple[Callable[[Bench], Check], ...] = (
    edits.self_swap_keys_values,
    batches.hidden_positions,
    batches.visible_positions,
)


@answers_for_calls(PlanError)
@with_ieee_products
def verify(
    model: LatentReasoner,
    problems: ProblemSet,
    *,
    level: Level = "full",
    plan: Plan | None = None,
    answer_tokens: int = 12,
    cases: Mapping[str, Any] | None = None,
    recorded: Fingerprint | None = None,
    identity: str | None = None,
) -> Certificate:
    """Run the checks on the first problems.

    Args:
        model: The model. In half precision it is checked in float32: what is proved is that the right thing is
            computed, which rounding to 8 bits would hide.
        problems: At least 2; the first 6 are used, and as many as a trial of the plan needs.
        level: `core`, seconds before every run, or `full`.
        plan: What is to run on them: all its arms are tried. None tries every method.
        answer_tokens: The longest answer in these checks.
        cases: What the official code did on some questions, from `conformance.read_cases`, to be compared as well.
        recorded: The fingerprint in the model's card, to be compared in a full certificate.
        identity: What the user calls hooks and edits of the loaded model, as `run` has it.

    Raises:
        PlanError: Fewer than 2 problems, or no such level.
        CheckpointError: The model's files are gone.
        ModelError: The model is not as it was loaded and no name is given.
    """
    model, problems = as_model(model), as_problems(problems)
    answer_tokens = whole(answer_tokens, "answer_tokens", PlanError, least=1)
    if len(problems) < 2:
        raise PlanError("nothing to verify", got=f"{len(problems)} problems", expected="at least 2")
    choice(level, "level of certification", LEVELS, PlanError)
    model = admitted(model, identity)
    dtype, model_hash, full = model.dtype_name, model.model_hash, level == "full"
    notes = ["computed in float32, in which rounding hides nothing"] if model.dtype in HALF else []
    with in_float32(model):
        bench = Bench(model, problems[: min(_PROBLEMS, len(problems))], answer_tokens)
        checks = _of_edits_and_batches(bench, level)
        trial = make_trial(model, problems, plan or standard_plan(model, full=full), answer_tokens)
        records = Records(model, trial)
        checks += [*(check(records) for check in CHECKS), *([] if cases is None else [conformance(model, cases)])]
        notes += [*edits.notes(bench), *trial.notes]
    for found in _of_files(model, recorded) if full else ():
        checks += [found] if isinstance(found, Check) else []
        notes += [found] if isinstance(found, str) else []
    return Certificate(
        model=model.full_name,
        protocol=model.protocol.name,
        dtype=dtype,
        kind=level,
        checks=tuple(checks),
        model_hash=model_hash,
        plan_hash="" if plan is None else plan.plan_hash,
        num_latents=model.num_latents,
        dead_slots=bench.dead_slots,
        shared_slots=bench.shared_slots,
        notes=tuple(notes),
    )


def _of_edits_and_batches(bench: Bench, level: Level) -> list[Check]:
    """The checks that are made on the bench; the last looks at what the others left behind."""
    if not bench.model.num_latents:
        return [check(bench) for check in _WITHOUT_THOUGHTS]
    asked = (*_CORE, *(_FULL if level == "full" else ()), batches.cache_isolation)
    return [check(bench) for check in asked]


def _of_files(model: LatentReasoner, recorded: Fingerprint | None) -> list[Check | str]:
    """The checks against the model's files and its card, or why one cannot be made."""
    return [weights(model), *([] if recorded is None else [fingerprint(model, recorded)])]


def certificate_for(
    model: LatentReasoner, problems: ProblemSet, out: Path, certify: str, plan: Plan | None = None
) -> Certificate | None:
    """The certificate that a run still needs; None where it is switched off, or lies there already.

    Args:
        model: The run's model.
        problems: Its problems.
        out: Its folder, which need not exist.
        certify: `auto` (the core checks), `full` or `off`.
        plan: What is to be run; None where nothing is edited.

    Raises:
        PlanError: Another word.
        ModelError: One of the problems, checked or not, does not fit the model's context.
    """
    choice(certify, "choice for --certify", CERTIFY, PlanError)
    there = (read_json(out / CERTIFICATE_FILE) if (out / CERTIFICATE_FILE).exists() else None) or {}
    enough = there.get("passed") and (certify == "auto" or there.get("kind") == "full")
    if certify == "off" or (enough and (plan is None or there.get("plan_hash") == plan.plan_hash)):
        return None
    encode(model, problems)  # the checks are of the first few, and take their time
    full = certify == "full"
    recorded = read_fingerprint(model_folder(model.name)) if full else None
    return verify(model, problems, level="full" if full else "core", plan=plan, recorded=recorded)
