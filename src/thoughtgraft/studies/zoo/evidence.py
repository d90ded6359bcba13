"""What is measured of each model of a zoo, as it is kept and read again; without torch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from thoughtgraft.errors import AnalysisError, RunError
from thoughtgraft.files import make_folder, read_json, to_json, write_atomic
from thoughtgraft.records.shards import AGAIN_FIX, read_frame, write_parquet
from thoughtgraft.records.spec import PROBLEMS_FILE
from thoughtgraft.studies.run import Run, Runs
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.problem import ProblemSet

RUNS = "runs"
"""Below it lie the runs of the models that are fed something."""
MEASURED = "measured"
"""Below it lies what else is known of each model."""
ASKED_FILE = "asked.json"
_FACTS = ("name", "method", "num_latents", "card", "main", "certificate", "why_no_slots")
THINKING = ("codi", "coconut")
"""Methods whose models are fed their own states."""
PAUSE = "pause"
"""The method that feeds the same vectors whatever the problem: the control of every claim about slots."""


@dataclass(frozen=True)
class Measured:
    """One model.

    Attributes:
        name: What it is called.
        method: The method that it was trained by.
        num_latents: Slots, K >= 0.
        card: Facts of its card: steps, seed, parameters, ...
        main: The condition that is its plain answer.
        correct: `problem_id`, `n_steps`, `operation` and a column of booleans for each condition, null
            where the answer failed; one row per problem.
        certificate: Outcome of the checks; None where there is none.
        records: Generations of the resampling study; None without slots.
        decoded: Decoded thoughts; None without slots.
        states: `hidden`, float32 [problem, K + 1, d], in the order of `correct`.
        why_no_slots: Why it is fed no thought, where it is not.
    """

    name: str
    method: str
    num_latents: int
    card: Mapping[str, Any]
    main: str
    correct: pd.DataFrame
    certificate: Mapping[str, Any] | None
    records: pd.DataFrame | None
    decoded: pd.DataFrame | None
    states: np.ndarray
    why_no_slots: str = ""

    def write(self, folder: Path) -> None:
        """Keep all but the records, which lie in a run's folder.

        Raises:
            RunError: The disk refuses.
        """
        make_folder(folder)
        facts = {name: getattr(self, name) for name in _FACTS}
        write_atomic(folder / "model.json", to_json(facts, "model.json"))
        for name, table in (("answers", self.correct), ("lens", self.decoded)):
            if table is not None:
                write_parquet(folder / f"{name}.parquet", pa.Table.from_pandas(table, preserve_index=False))
        file = io.BytesIO()
        np.save(file, self.states, allow_pickle=False)
        write_atomic(folder / "states.npy", file.getvalue())

    @classmethod
    def read(cls, folder: Path, records: pd.DataFrame | None) -> Measured:
        """What was kept, with the records of the model's run where it has one.

        Raises:
            RunError: A file is missing or damaged.
        """
        facts, correct = read_json(folder / "model.json"), read_frame(folder / "answers.parquet")
        right = {name: "boolean" for name in correct.columns if name not in ("problem_id", "n_steps", "operation")}
        decoded = None if records is None else read_frame(folder / "lens.parquet")
        try:
            states = np.load(folder / "states.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RunError(f"{folder / 'states.npy'} is missing or damaged", got=str(error), fix=AGAIN_FIX) from error
        return cls(**facts, correct=correct.astype(right), records=records, decoded=decoded, states=states)

    @property
    def thinks(self) -> bool:
        """Whether it is fed its own states."""
        return self.method in THINKING

    @property
    def n_failed(self) -> int:
        """Answers and generations without an outcome, which no figure counts."""
        records = 0 if self.records is None or "error" not in self.records else self.records["error"].notna().sum()
        return int(self.correct[self.conditions].isna().to_numpy().sum() + records)

    @property
    def conditions(self) -> list[str]:
        """What it was measured under, its plain answer first."""
        return [name for name in self.correct.columns if name not in ("problem_id", "n_steps", "operation")]


def check_zoo(zoo: tuple[Measured, ...]) -> None:
    """Refuse models that were not asked the same problems, or share a name.

    Raises:
        AnalysisError: They cannot be compared.
    """
    names = [model.name for model in zoo]
    if not names or len(set(names)) < len(names):
        raise AnalysisError("a zoo is of different models", got=", ".join(names) or "none", fix="name each model once")
    for model in zoo[1:]:
        if list(model.correct.problem_id) != list(zoo[0].correct.problem_id):
            raise AnalysisError(
                "the models were not asked the same problems", got=model.name, expected=f"those of {zoo[0].name}"
            )


@dataclass(frozen=True)
class AskedZoo:
    """What a zoo's models were asked.

    Attributes:
        models: The names of their folders, in order.
        facts: What the page says of it: problems, resampling, seed.
    """

    models: Sequence[str]
    facts: Mapping[str, str]

    def write(self, folder: Path, problems: ProblemSet) -> None:
        """Keep it in the zoo's folder, with the problems.

        Raises:
            RunError: The disk refuses.
        """
        table = pa.Table.from_pandas(problem_table(problems), preserve_index=False)
        write_parquet(folder / PROBLEMS_FILE, table)
        asked = {"models": list(self.models), "facts": dict(self.facts)}
        write_atomic(folder / MEASURED / ASKED_FILE, to_json(asked, ASKED_FILE))

    @classmethod
    def read(cls, folder: Path) -> AskedZoo:
        """Of a zoo's folder.

        Raises:
            RunError: It is no zoo's, or the file is damaged.
        """
        return cls(**read_json(folder / MEASURED / ASKED_FILE))


def read_models(run: Run) -> list[Measured]:
    """The models of a zoo's folder, with the records of those that have a run.

    Raises:
        RunError: A file is missing or damaged.
    """
    records = {name: part.records() for name, part in run.parts.items()} if isinstance(run, Runs) else {}
    names = AskedZoo.read(run.path).models
    return [Measured.read(run.path / MEASURED / name, records.get(name)) for name in names]
