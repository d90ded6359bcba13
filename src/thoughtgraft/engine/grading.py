"""From generations to records: grade, compare with the clean run and the donor, fill every column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isnan
from typing import Any

from thoughtgraft.engine.rollout import RolloutResult
from thoughtgraft.interventions.plan import Cell
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.problems import ProblemSet, extract_answer, format_number, parse_number, same_answer
from thoughtgraft.thoughts import Thoughts


@dataclass(frozen=True)
class Grader:
    """Everything that stays the same over a run's records."""

    model: LatentReasoner
    problems: ProblemSet
    thoughts: Thoughts
    prompts: Sequence[Prompt]
    run_id: str
    seed: int

    def rows(self, cells: Sequence[Cell], result: RolloutResult) -> list[dict[str, Any]]:
        """One record for each cell, in order; row i of `result` is cell i."""
        return [
            self._row(cell, result, i) if reason is None else self.failed(cell, reason)
            for i, (cell, reason) in enumerate(zip(cells, result.failed, strict=True))
        ]

    def failed(self, cell: Cell, reason: str) -> dict[str, Any]:
        """The record of a cell that has no outcome: what it is, and what went wrong. It is never a wrong answer."""
        return self._what(cell) | {"error": reason}

    def _what(self, cell: Cell) -> dict[str, Any]:
        problem, arm, base = self.problems[cell.host], cell.arm, self.thoughts
        record: dict[str, Any] = {
            "run_id": self.run_id,
            "cell": cell.key,
            "arm": arm.label,
            "method": arm.name,
            "slots": list(arm.slots),
            "downstream": arm.downstream if arm.slots else None,
            "protocol": self.model.protocol.name,
            "num_latents": self.model.num_latents,
            "model_edit": None if self.model.edit is None else self.model.edit.name,
            "problem_id": problem.id,
            "split": problem.split,
            "n_steps": len(problem.steps) or None,
            "operation": problem.operation,
            "gold": problem.answer,
            "base_pred": base.pred[cell.host],
            "base_correct": base.correct[cell.host],
            "pad": self.prompts[cell.host].pad,
            "seed": self.seed if cell.draw is not None or arm.op is not None else None,
        }
        if cell.donor is not None:
            record |= {
                "donor_id": self.problems[cell.donor].id,
                "donor_stratum": cell.stratum,
                "donor_pred": base.pred[cell.donor],
                "donor_correct": base.correct[cell.donor],
            }
        return record

    def _row(self, cell: Cell, result: RolloutResult, i: int) -> dict[str, Any]:
        record = self._what(cell)
        ids = result.answers.token_ids[i]
        text = self.model.text(ids)
        number = extract_answer(text)
        base = _number(record["base_pred"])
        gold = self.problems[cell.host].gold
        record |= {
            "text": text,
            "token_ids": list(ids),
            "stop_reason": "eos" if result.answers.stopped[i] else "length",
            "n_tokens": len(ids),
            "pred": None if number is None else format_number(number),
            "valid": number is not None,
            "correct": same_answer(number, gold),
            # Two answers without a number are not the same answer, but nothing changed between them either.
            "changed": not (number is None and base is None) and not same_answer(number, base),
            "fed_norm": _defined(result.edit_norm[i].item()),
        }
        if cell.donor is not None:
            donor = _number(record.get("donor_pred"))
            eligible = donor is not None and donor != base and donor != gold
            record["adopted"] = same_answer(number, donor) if eligible else None
            record["donor_cos"] = _defined(result.edit_cosine[i].item())
        if result.scores is not None:
            record["logp_gold"] = _defined(result.scores.logp_gold[i].item())
            record["logp_donor"] = _defined(result.scores.logp_donor[i].item())
            record["kl"] = _defined(result.scores.kl[i].item())
            clean = result.scores.clean_logp_gold[i].item()
            record["dlogp_gold"] = _defined(result.scores.logp_gold[i].item() - clean)
        return record


def _number(text: str | None) -> Fraction | None:
    return None if text is None else parse_number(text)


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
