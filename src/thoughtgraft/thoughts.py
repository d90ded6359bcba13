"""Thoughts: the clean run of one model on one problem set, frozen, saved with the hashes of what made it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thoughtgraft.arguments import parse_json, path_of
from thoughtgraft.errors import RunError, differences
from thoughtgraft.tensorfile import save_tensors

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_DIFFERENCES = 12


@dataclass(frozen=True)
class Thoughts:
    """What a model thought and answered, unedited, on each problem.

    Attributes:
        fed: The vectors fed at slots 0..K-1.
        hidden: The final-normed states they are projected from; `hidden[:, K]` is never fed. Under a protocol whose
            loop begins with begin-of-thought there are K of them, and `fed[:, K-1]` is made and never fed.
        token_ids: Each answer, without the end of sequence.
        texts: Each answer, decoded.
        stopped: Whether the end of sequence was written.
        pred: The number in each answer as exact text; None where there is none.
        correct: Whether it equals the gold answer.
        problem_ids: In the problem set's order.
        identity: What made them: everything of the model that can change a number, and how long an answer could be.
        problem_hash: Content hash of the problem set.
    """

    fed: Float[Tensor, "problem slot d"]
    hidden: Float[Tensor, "problem state d"]
    token_ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    stopped: tuple[bool, ...]
    pred: tuple[str | None, ...]
    correct: tuple[bool, ...]
    problem_ids: tuple[str, ...]
    identity: Mapping[str, Any]
    problem_hash: str

    def __post_init__(self) -> None:
        n = len(self.problem_ids)
        never_fed = self.hidden.shape[1] - self.fed.shape[1]
        if self.fed.shape[0] != n or self.hidden.shape[0] != n or never_fed not in (0, 1):
            raise RunError(
                "thoughts do not fit together",
                got=f"fed {tuple(self.fed.shape)}, hidden {tuple(self.hidden.shape)}, {n} problems",
                expected="fed [problem, K, d] and hidden [problem, K+1, d] (or K of them)",
            )

    def __len__(self) -> int:
        return len(self.problem_ids)

    @property
    def right(self) -> pd.Series[bool]:
        """Whether each answer is right, by problem id."""
        import pandas as pd

        return pd.Series(self.correct, index=list(self.problem_ids), dtype="boolean")

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return sum(self.correct) / len(self)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        path = path_of(path, "the file of thoughts")
        rest = {
            name: getattr(self, name)
            for name in ("token_ids", "texts", "stopped", "pred", "correct", "problem_ids", "problem_hash")
        }
        metadata = {"thoughts": json.dumps(rest), "identity": json.dumps(dict(self.identity))}
        part = path.with_name(path.name + ".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {"fed": self.fed.contiguous(), "hidden": self.hidden.contiguous()}
            save_tensors(tensors, part, metadata=metadata)
            with part.open("rb") as file:
                os.fsync(file.fileno())  # Else a power cut could leave the name without its content.
            part.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            fix = "free some disk space, or choose a folder you may write to; then run the same command again"
            raise RunError(f"{path} cannot be written", got=str(error), fix=fix) from error

    @classmethod
    def load(
        cls, path: str | Path, *, identity: Mapping[str, Any] | None = None, problem_hash: str | None = None
    ) -> Thoughts:
        """Read a saved file.

        Args:
            path: The file.
            identity: What must have made it; None accepts anything.
            problem_hash: What its problem set must be; None accepts any.

        Raises:
            RunError: The file is damaged, or was made from something else.
        """
        path = path_of(path, "the file of thoughts")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                fed, hidden = file.get_tensor("fed"), file.get_tensor("hidden")
                rest, made_by = parse_json(metadata["thoughts"]), parse_json(metadata["identity"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunError(
                f"{path} is not a readable thoughts file", got=str(error), fix="delete it and run again"
            ) from error
        thoughts = cls(
            fed=fed,
            hidden=hidden,
            token_ids=tuple(tuple(ids) for ids in rest["token_ids"]),
            texts=tuple(rest["texts"]),
            stopped=tuple(rest["stopped"]),
            pred=tuple(rest["pred"]),
            correct=tuple(rest["correct"]),
            problem_ids=tuple(rest["problem_ids"]),
            identity=made_by,
            problem_hash=rest["problem_hash"],
        )
        thoughts.require(identity, problem_hash, f"{path} was made from", "use another folder")
        return thoughts

    def require(
        self,
        identity: Mapping[str, Any] | None,
        problem_hash: str | None,
        what: str = "the thoughts are of",
        fix: str = "collect them anew",
    ) -> None:
        """Refuse thoughts that something else made.

        Args:
            identity: What must have made them; None accepts anything.
            problem_hash: What their problem set must be; None accepts any.
            what: What they are called in the message, up to `another model`.
            fix: What to do about it.

        Raises:
            RunError: They were made from another model, answer limit or problem set; what differs is named. Or an
                earlier version made them, which did not say.
        """
        if identity is not None and "config" not in self.identity:
            got = "no word of the model's config, tokenizer and longest answer: an earlier version wrote them"
            raise RunError(f"{what} a model that cannot be told", got=got, fix=fix)
        lines = [] if identity is None else differences("", dict(self.identity), dict(identity))
        if lines:
            got = "\n  " + "\n  ".join(lines[:_SHOWN_DIFFERENCES]) + "\n"
            raise RunError(f"{what} another model", got=got, expected="those of this model", fix=fix)
        if problem_hash not in (None, self.problem_hash):
            raise RunError(f"{what} another problem set", got=self.problem_hash, expected=problem_hash, fix=fix)
