"""Checks of the model itself: its weights against its files, its answers against those that its card records."""

from __future__ import annotations

from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.verify.bench import HALF
from thoughtgraft.engine.verify.statements import at_most
from thoughtgraft.models.checkpoint.audit import Fingerprint
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.certificate import Check
from thoughtgraft.tasks.problem import Problem, ProblemSet

QUESTIONS = 16
_SHOWN = 3
_BY_ROUNDING = 2


def weights(model: LatentReasoner) -> Check | str:
    """Count the parameters that are not what the files say; a note where the adapter cannot tell.

    Raises:
        CheckpointError: The files are gone or damaged.
    """
    audit = model.audit()
    if audit is None:
        return "weights were not compared with their files: this adapter cannot read them again"
    detail = f"{audit.parameters} parameters"
    if audit.wrong:
        more = ", ..." if len(audit.wrong) > _SHOWN else ""
        detail += f"; not the file's: {', '.join(audit.wrong[:_SHOWN])}{more}"
    if not audit.same_hash:
        detail += "; the hash of the files is not the one taken while loading"
    if not audit.projects:
        detail += "; a state is not turned into a thought as the file's prj does it"
    wrong = len(audit.wrong) + (not audit.same_hash) + (not audit.projects)
    return at_most("weights are the file's", float(wrong), 0, detail)


def take_fingerprint(model: LatentReasoner, problems: ProblemSet) -> Fingerprint:
    """The model's answers to the first `QUESTIONS` problems."""
    asked = problems[: min(QUESTIONS, len(problems))]
    answers = collect_thoughts(model, asked, progress=False).texts
    questions = tuple(problem.question for problem in asked)
    return Fingerprint(model.weight_hash, model.protocol.name, model.num_latents, questions, answers)


def fingerprint(model: LatentReasoner, recorded: Fingerprint) -> Check | str:
    """Count the answers that are not the recorded ones; a note where the card's are not comparable."""
    now = (model.protocol.name, model.num_latents)
    if now != (recorded.protocol, recorded.num_latents):
        then = f"protocol {recorded.protocol} with {recorded.num_latents} thoughts"
        return f"the fingerprint in the model's card was not compared: it is of {then}"
    problems = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(recorded.questions)), "fingerprint")
    found = take_fingerprint(model, problems)
    differ = [i for i, (a, b) in enumerate(zip(found.answers, recorded.answers, strict=True)) if a != b]
    figure, detail = float(len(differ)), f"{len(differ)} of {len(recorded.answers)} answers differ"
    if differ:
        i = differ[0]
        detail += f"; question {i}: {found.answers[i]!r}, recorded {recorded.answers[i]!r}"
    if found.weight_hash != recorded.weight_hash:
        figure, detail = figure + len(found.answers), f"other weights; {detail}"
    # In half precision a near tie may fall the other way.
    return at_most("fingerprint", figure, _BY_ROUNDING if model.dtype in HALF else 0, detail)
