"""Conformance: what the official code did on some questions, written down as JSON, against what this model does.

The file holds `questions` and, for each, `unpadded`: input_ids, z_fed [K, d] and first_answer_logits [V]; it may hold
`swaps` (host, donor, slot, first_answer_logits) and `zeros` (host, slot, first_answer_logits), hosts and donors as
0-based numbers of questions. Slots that are never fed are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.arguments import parse_json
from thoughtgraft.engine.grid import Row
from thoughtgraft.engine.rollout import Source, rollout
from thoughtgraft.engine.verify.bench import gap, logits_of
from thoughtgraft.engine.verify.certificate import Check, at_most
from thoughtgraft.errors import ModelError
from thoughtgraft.interventions.arms import Arm
from thoughtgraft.interventions.ops import OPS
from thoughtgraft.interventions.schedule import schedule
from thoughtgraft.models.reasoner import LatentReasoner

_SAME = 0.02
"""Distance, relative to the largest figure, that two float32 programs may show on networks of high gain."""


def read_cases(path: str | Path) -> dict[str, Any]:
    """The cases in a file.

    Raises:
        ModelError: It is not such a file.
    """
    try:
        cases = parse_json(Path(path).read_text())
        if len(cases["questions"]) != len(cases["unpadded"]):
            raise ValueError("questions and unpadded differ in length")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} holds no official cases",
            got=repr(error),
            expected="JSON with questions and unpadded (input_ids, z_fed, first_answer_logits), as in tests/golden",
        ) from error
    return dict(cases)


def conformance(model: LatentReasoner, cases: Mapping[str, Any]) -> Check:
    """Prompts, thoughts, first answer logits, swaps and zeros, in this order; the first that differ are named."""
    name, official = "official cases", cases["unpadded"]
    prompts = [model.prompt(question) for question in cases["questions"]]
    for i, (prompt, wanted) in enumerate(zip(prompts, official, strict=True)):
        if list(prompt.ids) != wanted["input_ids"]:
            return at_most(name, torch.inf, _SAME, f"the prompt of question {i} has other ids")

    def row(method: str, case: Mapping[str, Any]) -> Row:
        slots = (case["slot"],) if "slot" in case else ()
        actions = schedule(Arm(method, slots), model.num_latents, model.protocol.edit_delay)
        return Row(case["host"], actions, OPS.get(method), case["host"], case.get("donor"))

    hosts = [{"host": i, "first_answer_logits": c["first_answer_logits"]} for i, c in enumerate(official)]
    groups = {"baseline": hosts, "swap": cases.get("swaps", []), "zero": cases.get("zeros", [])}
    groups = {method: [c for c in found if c.get("slot", 0) < model.num_latents] for method, found in groups.items()}
    clean = rollout(model, prompts, [row("baseline", hosts[0])], max_new_tokens=1)
    wanted = torch.tensor([case["z_fed"] for case in official])
    if wanted.shape != clean.fed.shape:
        got = f"{tuple(clean.fed.shape)} thoughts, officially {tuple(wanted.shape)}"
        return at_most(name, torch.inf, _SAME, got)
    figures = {"the thoughts": _relative(clean.fed.cpu().float(), wanted)}
    rows = [row(method, case) for method, found in groups.items() for case in found]
    found = rollout(model, prompts, rows, Source.from_fed(clean.fed.clone()), max_new_tokens=1, keep_logits=True)
    logits, at = logits_of(found).float(), 0
    for method, members in groups.items():
        if members:
            there = torch.tensor([case["first_answer_logits"] for case in members])
            figures[f"the logits of {method}"] = _relative(logits[at : at + len(members)], there)
            at += len(members)
    first = next((what for what, figure in figures.items() if not figure <= _SAME), "")
    detail = f"{len(rows)} runs on {len(prompts)} questions" + (f"; {first} are the first to differ" if first else "")
    return at_most(name, max(figures.values()), _SAME, detail)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return gap(ours, theirs) / float(theirs.abs().max())
