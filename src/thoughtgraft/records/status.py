"""How a run stands: counted from its shards and its last sign of life, while it is writing, from any process."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from thoughtgraft.arguments import path_of
from thoughtgraft.errors import RunError
from thoughtgraft.files import DAMAGE_FIX, read_json
from thoughtgraft.records.alive import Heartbeat, read_heartbeat
from thoughtgraft.records.looks import Looks
from thoughtgraft.records.schema import ARM_COLUMNS, ArmKey
from thoughtgraft.records.shards import DamagedShard, ShardFolder, list_text
from thoughtgraft.records.spec import (
    CERTIFICATE_FILE,
    QUARANTINE_FOLDER,
    RECORDS_FOLDER,
    SPEC_FILE,
    arms_planned,
    read_spec_file,
)

State = Literal["alive", "stopped", "dead", "finished"]
Certificate = Literal["passed", "failed", "unreadable", "none"]

_COLUMNS = (*ARM_COLUMNS, "correct", "base_correct", "error")


@dataclass(frozen=True)
class ArmStatus:
    """One line of the status: one arm. Fractions are of graded cells; None = nothing graded yet.

    Attributes:
        arm: The arm.
        done: Cells stored, failed ones included.
        total: Cells planned; None where the plan does not say.
        errors: Cells that failed.
        accuracy: Fraction correct.
        base_accuracy: Fraction of the same cells whose host was right unedited.
        impact_pp: 100 * (base_accuracy - accuracy), percentage points: a plain difference, without an interval.
    """

    arm: ArmKey
    done: int
    total: int | None
    errors: int
    accuracy: float | None
    base_accuracy: float | None
    impact_pp: float | None


@dataclass(frozen=True)
class Status:
    """A run at one moment.

    Attributes:
        state: `finished` when every planned cell is stored; else `alive` while the writing process writes,
            `stopped` if it closed the run early (an interrupt, an error), `dead` if it is gone without a word.
        done, total: Items stored and planned.
        item: What is counted: `cell`, or `feature` for a run that keeps what layers held.
        phase: What the process said it was doing.
        rate_per_s: Items per second in that phase; eta_s: seconds left of it. None when unknown or not running.
        heartbeat_age_s: Seconds since the last sign of life; None if there never was one.
        errors: Cells that failed.
        damaged_shards: Shards that do not parse; continuing the run runs their cells again.
        looks: What had been looked at when the run began; None where that was not counted.
    """

    path: str
    study: str
    model: str
    protocol: str
    state: State
    done: int
    total: int
    item: str
    phase: str | None
    rate_per_s: float | None
    eta_s: float | None
    heartbeat_age_s: float | None
    certificate: Certificate
    errors: int
    damaged_shards: int
    looks: Looks | None
    arms: tuple[ArmStatus, ...]

    @property
    def main_arms(self) -> tuple[ArmStatus, ...]:
        """The main ones of no, one and all slots; an erasure's draws not."""
        widest = self.widest
        return tuple(
            line
            for line in self.arms
            if line.arm.main and line.arm.span(widest) != "some" and not re.fullmatch(r"random \d+", line.arm.method)
        )

    @property
    def widest(self) -> int:
        """The most slots that an arm edits."""
        return max((len(line.arm.slots) for line in self.arms), default=0)

    def to_json(self, indent: int | None = 1) -> str:
        """The same as JSON text, arms with their columns and label; on one line without an indent."""
        shown = asdict(self)
        for line, row in zip(self.arms, shown["arms"], strict=True):
            del row["arm"]
            row |= {"label": line.arm.label(), **line.arm.columns}
        return json.dumps(shown, indent=indent)


@dataclass
class _Tally:
    done: int = 0
    errors: int = 0
    graded: int = 0
    correct: int = 0
    paired: int = 0
    paired_correct: int = 0
    paired_base: int = 0


def read_status(path: str | Path) -> Status:
    """Count what is stored and judge whether the run lives.

    Args:
        path: The run folder.

    Raises:
        RunError: It is not a run's.
    """
    path = path_of(path, "the run's folder")
    spec = read_spec_file(path)
    if lacks := [name for name in ("study", "model", "protocol", "n_cells", "plan") if name not in spec]:
        raise RunError(f"{path / SPEC_FILE} is damaged", got=f"no {', '.join(lacks)}", fix=DAMAGE_FIX)
    damaged: list[DamagedShard] = []
    shards = ShardFolder(path / RECORDS_FOLDER, path / QUARANTINE_FOLDER)
    tables = shards.tables(_COLUMNS, on_damage=damaged.append)
    tallies = _count(pa.concat_tables(tables)) if tables else {}
    totals = arms_planned(spec["plan"])
    done = sum(tally.done for tally in tallies.values())
    keeps_features = isinstance(spec["plan"].get("features"), dict)
    if keeps_features:  # A run of features holds no records: what counts is whose features are stored.
        from thoughtgraft.records.states import count_stored

        done = count_stored(path)
    beat = read_heartbeat(path)
    finished = done >= spec["n_cells"]
    # The plan's order first, then whatever else is stored.
    arms = dict.fromkeys([*totals, *tallies])
    return Status(
        path=str(path),
        study=spec["study"],
        model=spec["model"],
        protocol=spec["protocol"],
        state="finished" if finished else _state(beat),
        done=done,
        total=spec["n_cells"],
        item="feature" if keeps_features else "cell",
        phase=beat.phase if beat else None,
        rate_per_s=beat.rate if beat else None,
        eta_s=_eta_s(beat) if beat and beat.alive and not finished else None,
        heartbeat_age_s=beat.age_s if beat else None,
        certificate=_certificate(path),
        errors=sum(tally.errors for tally in tallies.values()),
        damaged_shards=len(damaged),
        looks=Looks.of_spec(spec, path / SPEC_FILE),
        arms=tuple(_line(arm, tallies.get(arm, _Tally()), totals.get(arm)) for arm in arms),
    )


def _count(table: pa.Table) -> dict[ArmKey, _Tally]:
    """Rows that count alike get the same number, and the few distinct numbers are counted: no Python loop over rows."""
    if not table.num_rows:
        return {}
    texts = list_text(table["slots"])
    facts = [texts if name == "slots" else table[name] for name in (*ARM_COLUMNS, "correct", "base_correct")]
    coded = [_codes(fact) for fact in [*facts, table["error"].is_valid()]]
    sizes = [len(values) for _, values in coded]
    numbers, counts = np.unique(np.ravel_multi_index([codes for codes, _ in coded], sizes), return_counts=True)
    tallies: defaultdict[ArmKey, _Tally] = defaultdict(_Tally)
    for places, count in zip(np.transpose(np.unravel_index(numbers, sizes)), counts.tolist(), strict=True):
        *arm, correct, base, failed = (values[at] for at, (_, values) in zip(places, coded, strict=True))
        tally = tallies[_arm_of(dict(zip(ARM_COLUMNS, arm, strict=True)))]
        tally.done += count
        tally.errors += count * failed
        if correct is not None:
            tally.graded += count
            tally.correct += count * correct
        if correct is not None and base is not None:
            tally.paired += count
            tally.paired_correct += count * correct
            tally.paired_base += count * base
    return tallies


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """0-based codes [row] and the values they stand for; read from the buffer, since `to_numpy` imports pandas."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(encoded), 4 * encoded.indices.offset)
    return codes, encoded.dictionary.to_pylist()


def _arm_of(row: dict[str, Any]) -> ArmKey:
    """The arm of coded columns, whose slots are a text that `list_text` made."""
    return ArmKey.of_row(row | {"slots": [int(k) for k in row["slots"].split(",") if k]})


def _line(arm: ArmKey, tally: _Tally, total: int | None) -> ArmStatus:
    base = tally.paired_base / tally.paired if tally.paired else None
    return ArmStatus(
        arm=arm,
        done=tally.done,
        total=total,
        errors=tally.errors,
        accuracy=tally.correct / tally.graded if tally.graded else None,
        base_accuracy=base,
        impact_pp=None if base is None else 100 * (base - tally.paired_correct / tally.paired),
    )


def _state(beat: Heartbeat | None) -> State:
    if beat is None:
        return "dead"
    return "alive" if beat.alive else "stopped" if beat.ended else "dead"


def _eta_s(beat: Heartbeat) -> float | None:
    return (beat.total - beat.done) / beat.rate if beat.rate else None


def _certificate(path: Path) -> Certificate:
    if not (path / CERTIFICATE_FILE).exists():
        return "none"
    try:
        passed = read_json(path / CERTIFICATE_FILE)["passed"]
    except (RunError, KeyError, TypeError):
        return "unreadable"
    return "passed" if passed else "failed"
