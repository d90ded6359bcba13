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
from thoughtgraft.records.shards import DamagedShard, ShardFolder, list_text
from thoughtgraft.records.spec import CERTIFICATE_FILE, QUARANTINE_FOLDER, RECORDS_FOLDER, SPEC_FILE, read_spec_file

State = Literal["alive", "stopped", "dead", "finished"]
Certificate = Literal["passed", "failed", "unreadable", "none"]

_COLUMNS = ("method", "slots", "downstream", "donor_stratum", "correct", "base_correct", "error")


@dataclass(frozen=True)
class ArmStatus:
    """One line of the status: a method at some slots. Fractions are of graded cells; None = nothing graded yet.

    Attributes:
        key: `method|slots|downstream|stratum`.
        done: Cells stored, failed ones included.
        total: Cells planned; None where the plan does not say.
        errors: Cells that failed.
        accuracy: Fraction correct.
        base_accuracy: Fraction of the same cells whose host was right unedited.
        impact_pp: 100 * (base_accuracy - accuracy), percentage points: a plain difference, without an interval.
    """

    key: str
    method: str
    slots: tuple[int, ...]
    downstream: str
    donor_stratum: str
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
        """Those of no, one and all slots, with random donors and later thoughts recomputed; an erasure's draws not."""
        widest = max((len(arm.slots) for arm in self.arms), default=0)
        return tuple(
            arm
            for arm in self.arms
            if len(arm.slots) in (0, 1, widest)
            and arm.downstream in ("", "recompute")
            and arm.donor_stratum in ("", "random", "self")
            and not re.match(r"random \d+ ", arm.method)
        )

    def to_json(self, indent: int | None = 1) -> str:
        """The same as JSON text; on one line without an indent."""
        return json.dumps(asdict(self), indent=indent)


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
    planned = spec["plan"].get("cells_per_arm")
    totals = planned if isinstance(planned, dict) else {}
    done = sum(tally.done for tally in tallies.values())
    keeps_features = isinstance(spec["plan"].get("features"), dict)
    if keeps_features:  # A run of features holds no records: what counts is whose features are stored.
        from thoughtgraft.records.states import count_stored

        done = count_stored(path)
    beat = read_heartbeat(path)
    finished = done >= spec["n_cells"]
    # The plan's order first, then whatever else is stored.
    keys = dict.fromkeys([*totals, *tallies])
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
        arms=tuple(_arm(key, tallies.get(key, _Tally()), totals.get(key)) for key in keys),
    )


def _count(table: pa.Table) -> dict[str, _Tally]:
    """Rows that count alike get the same number, and the few distinct numbers are counted: no Python loop over rows."""
    if not table.num_rows:
        return {}
    facts = [
        table["method"],
        list_text(table["slots"]),
        table["downstream"],
        table["donor_stratum"],
        table["correct"],
        table["base_correct"],
        table["error"].is_valid(),
    ]
    coded = [_codes(fact) for fact in facts]
    sizes = [len(values) for _, values in coded]
    numbers, counts = np.unique(np.ravel_multi_index([codes for codes, _ in coded], sizes), return_counts=True)
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    for places, count in zip(np.transpose(np.unravel_index(numbers, sizes)), counts.tolist(), strict=True):
        *key, correct, base, failed = (values[at] for at, (_, values) in zip(places, coded, strict=True))
        tally = tallies["|".join(text or "" for text in key)]
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


def _arm(key: str, tally: _Tally, total: int | None) -> ArmStatus:
    method, slots, downstream, stratum = [*key.split("|"), "", "", ""][:4]
    base = tally.paired_base / tally.paired if tally.paired else None
    return ArmStatus(
        key=key,
        method=method,
        slots=tuple(int(k) for k in slots.split(",") if k.isdigit()),
        downstream=downstream,
        donor_stratum=stratum,
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
