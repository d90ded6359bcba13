"""What run.json says of a run, of any version; its files' names, and where and with what it was made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from thoughtgraft.errors import RunError, differences, first_line
from thoughtgraft.files import DAMAGE_FIX, make_folder, read_json, to_json, write_atomic
from thoughtgraft.records.looks import Looks
from thoughtgraft.records.schema import SCHEMA_VERSION, VERSION_KEY, ArmKey

_SHOWN_DIFFERENCES = 12
UNSAID = "the model's config, tokenizer and longest answer"
"""What runs of schema 1 do not say of themselves."""


@dataclass(frozen=True)
class PilotFacts:
    """The pilot that prepared a run, as it stood when the run began.

    Attributes:
        run_id: Its run id.
        verdict: GO or NO-GO.
        needed_hosts: Hosts that it asks for, with the run's donors; None where no swap can have an effect.
        worst_slot: The slot that asks for most; empty where no answer's grade changed.
        mde_pp: The smallest impact of one slot that the run finds with 80% power, pp; None where undefined.
    """

    run_id: str
    verdict: str
    needed_hosts: int | None
    worst_slot: str
    mde_pp: float | None

    def shortfall(self, n_hosts: int) -> str:
        """The sentence that a run of so many hosts owes its reader; empty where it is as large as asked."""
        if self.needed_hosts is None or n_hosts >= self.needed_hosts:
            return ""
        finds = f": it finds impacts of {self.mde_pp:.1f} pp or more with 80% power" if self.mde_pp is not None else ""
        at = f" at {self.worst_slot}" if self.worst_slot else ""
        return f"Smaller than its pilot asks for: {n_hosts} hosts, and {self.needed_hosts} are needed{at}{finds}."


@dataclass(frozen=True)
class RuleFacts:
    """What was chosen of the decision rule before a run; decision.json holds all of it.

    Attributes:
        version: Of the rule.
        margin_pp: The smallest effect that matters, percentage points.
        alpha: The level of its intervals is 1 - alpha.
    """

    version: int
    margin_pp: float
    alpha: float

    @classmethod
    def of_text(cls, text: str) -> RuleFacts | None:
        """From a rule as it is kept in decision.json; None where it is no rule of this package."""
        try:
            rule = json.loads(text)
            return cls(int(rule["version"]), round(100 * float(rule["margin"]), 9), float(rule["alpha"]))
        except (ValueError, TypeError, KeyError):
            return None


class RunSpec(BaseModel):
    """What `run.json` says: what makes this run this run, and under which circumstances it was made.

    The identity fields must match for a folder to be continued. The others describe: counts that follow
    from the plan, and circumstances (device, versions, provenance) that may differ from one start to the next.

    Attributes:
        model_hash: Hash of `model_identity`.
        max_new_tokens: The longest answer; None in runs of schema 1, which do not say it.
        task: What was asked, and so how answers were read and compared; None in runs of schema 1.
        model_identity: Everything of the model that can change a number, part by part: weights, config, tokenizer,
            loop, dtype ...; None in runs of schema 1.
        options: What the study was asked: its `Options`, from which `--like` and `run_study` ask the same again; None
            where no study of this package asked, or before they were kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    study: str
    model: str
    model_hash: str
    protocol: str
    num_latents: int
    problems: str
    problem_hash: str
    plan_hash: str
    plan: dict[str, Any]
    seed: int | None
    dtype: str
    device: str
    n_hosts: int
    n_donors: int
    n_cells: int
    decision_hash: str | None = None
    rule: RuleFacts | None = None
    looks: Looks | None = None
    max_new_tokens: int | None = None
    task: str | None = None
    model_identity: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    versions: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    @property
    def pilot(self) -> PilotFacts | None:
        """The pilot that prepared the run, if one did."""
        found = self.plan.get("pilot")
        return (
            None if found is None else PilotFacts(**{field.name: found.get(field.name) for field in fields(PilotFacts)})
        )

    @property
    def cells_by_label(self) -> dict[str, int]:
        """Planned cells of each arm, by its label; empty where the plan does not say."""
        return {arm.label(): n for arm, n in arms_planned(self.plan).items()}

    def identity(self) -> dict[str, Any]:
        """The fields that must match for the run to be continued; those that an old run does not say are left out."""
        known = {name: getattr(self, name) for name in IDENTITY_FIELDS}
        return {name: value for name, value in known.items() if name not in _SINCE_2 or value is not None}

    @property
    def run_id(self) -> str:
        """Hash of the identity fields, 16 hex digits: the same command gives the same id on any machine."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]


def arms_planned(plan: Mapping[str, Any]) -> dict[ArmKey, int]:
    """The cells that a plan has of each arm; empty where it does not say."""
    counts = plan.get("cells_per_arm")
    return {ArmKey.of_row(row): row["n"] for row in counts} if isinstance(counts, list) else {}


IDENTITY_FIELDS = (
    "study", "model_hash", "protocol", "num_latents", "problem_hash", "plan_hash", "seed", "dtype", "decision_hash",
    "max_new_tokens", "task",
)  # fmt: skip
_SINCE_2 = ("max_new_tokens", "task")
_ASKED_FIELDS = ("model", "problems", "n_hosts", "n_donors", "seed", "rule")


def read_spec(path: Path) -> RunSpec:
    """The spec of a run folder.

    Raises:
        RunError: The folder is not a run's, or its `run.json` is damaged or of a newer version.
    """
    try:
        return RunSpec.model_validate(read_spec_file(path))
    except ValidationError as error:
        raise RunError(f"{path / SPEC_FILE} is damaged", got=first_line(error), fix=DAMAGE_FIX) from error


def refuse_another_run(path: Path, old: RunSpec, new: RunSpec) -> None:
    """Compare the identity fields of the stored spec and the new one.

    Raises:
        RunError: They differ; every differing field is listed, and within model and plan what differs there. Or the
            stored run is of schema 1 and does not say what its model was.
    """
    if old.model_identity is None and new.model_identity is not None:
        raise RunError(
            f"{path} was begun by an earlier version, which did not write down {UNSAID}, so nothing can prove that "
            "its records and new ones would be of one model",
            fix="use --out another folder; status, analyze, report, records and compare still read this one",
        )
    if old.identity() == new.identity():
        return
    # What was asked for comes first: people know it, and hashes follow from it.
    names = dict.fromkeys([*_ASKED_FIELDS, *IDENTITY_FIELDS])
    there, now = old.model_dump(), new.model_dump()
    lines = [line for name in names for line in differences(name, there[name], now[name])]
    lines += differences("", old.model_identity, new.model_identity)[:_SHOWN_DIFFERENCES]
    if old.plan_hash != new.plan_hash:
        there, now = ({**spec.plan, "cells_per_arm": spec.cells_by_label} for spec in (old, new))
        plans = differences("plan", there, now)
        # Counts of cells are told where they are not the hosts' and donors'.
        follow = (old.n_hosts, old.n_donors) != (new.n_hosts, new.n_donors)
        lines += [line for line in plans if not (follow and ".cells_per_arm." in line)][:_SHOWN_DIFFERENCES]
    raise RunError(
        f"{path} holds another run",
        got="\n  " + "\n  ".join(dict.fromkeys(lines)) + "\n",
        expected="the same run, to continue it",
        fix="use --out another folder",
    )


def refuse_another_model(spec: RunSpec, identity: Mapping[str, Any], what: str, fix: str) -> None:
    """Compare the model of a stored run with a loaded one.

    Args:
        spec: The run.
        identity: The loaded model's.
        what: What is wrong where they differ.
        fix: What to do about it.

    Raises:
        RunError: They differ, and in which parts; or the run does not say what its model was.
    """
    if spec.model_identity is None:
        raise RunError(what, got=f"a run of an earlier version, which did not write down {UNSAID}", fix=fix)
    if lines := differences("", spec.model_identity, identity):
        got = "\n  " + "\n  ".join(lines[:_SHOWN_DIFFERENCES]) + "\n"
        raise RunError(what, got=got, expected=f"{spec.model} as it was", fix=fix)


def read_spec_file(path: Path) -> dict[str, Any]:
    """The fields of a run folder's `run.json`, in the present version, not yet validated.

    Raises:
        RunError: The folder is not a run's, or the file is damaged or of a newer version.
    """
    file = path / SPEC_FILE
    if not file.is_file():
        expected = f"a folder with {SPEC_FILE}" if path.exists() else "an existing folder"
        raise RunError(f"{path} is not a run", expected=expected, fix="give the folder that was given to --out")
    raw = read_json(file)
    if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
        raise RunError(f"{file} is damaged", got="no schema_version", fix=DAMAGE_FIX)
    return migrate(raw, raw["schema_version"], SPEC_MIGRATIONS, str(file))


class StudySpec(BaseModel):
    """What `study.json` says of a study's folder that is no run itself.

    Attributes:
        study: Its name.
        options: What it was asked.
        parts: The runs of it, as the places of their folders below this one, each with another last name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    version: Literal[1] = 1
    study: str
    options: dict[str, Any]
    parts: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Keep it in the study's folder.

        Raises:
            RunError: The disk refuses.
        """
        make_folder(folder)
        write_atomic(folder / STUDY_FILE, to_json(self.model_dump(mode="json"), STUDY_FILE))


def read_study(path: Path) -> StudySpec | None:
    """What was asked of a folder that is a study's and no run's; None for any other.

    Raises:
        RunError: Its file is damaged, or of a version that is not known here.
    """
    file = path / STUDY_FILE
    if (path / SPEC_FILE).is_file() or not file.is_file():
        return None
    try:
        return StudySpec.model_validate(read_json(file))
    except ValidationError as error:
        raise RunError(f"{file} is damaged", got=first_line(error), fix=DAMAGE_FIX) from error


SPEC_FILE = "run.json"
STUDY_FILE = "study.json"
STARTS_FILE = "starts.json"
CERTIFICATE_FILE = "certificate.json"
DECISION_FILE = "decision.json"
THOUGHTS_FILE = "thoughts.safetensors"
PROBLEMS_FILE = "problems.parquet"
DECODED_FILE = "decoded.parquet"
HEARTBEAT_FILE = "heartbeat.json"
LOCK_FILE = "run.lock"
RECORDS_FOLDER = "records"
QUARANTINE_FOLDER = "quarantine"
FEATURES_FOLDER = "features"
UNTRAINED_FOLDER = "features-untrained"


Stored = TypeVar("Stored")


def _table_from_1(table: pa.Table) -> pa.Table:
    """Records did not say under which edit of the loaded model they were made; nobody could name one."""
    return table.append_column("model_edit", pa.nulls(table.num_rows, pa.string()))


def _spec_from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """`run.json` did not say the model's parts, the answer limit or the task: they stay unknown."""
    return raw | {"schema_version": 2}


def _table_from_2(table: pa.Table) -> pa.Table:
    """The layer of an edit stood in the text of `method`: `zero after L2`. It gets a column of its own.

    An own edit at a slot whose name ended so is taken for one at a layer: nothing in such a record tells them apart.
    """
    names = table["method"].to_pylist()
    apart = {name: _apart(name) for name in dict.fromkeys(names)}
    methods, layers = zip(*(apart[name] for name in names), strict=True) if names else ((), ())
    edited = pc.list_value_length(table["slots"]).to_pylist()
    acts = zip(layers, edited, strict=True)
    kinds = [None if not n_slots else "fed" if layer is None else "resid" for layer, n_slots in acts]
    table = table.set_column(table.column_names.index("method"), "method", pa.array(methods, pa.string()))
    table = table.append_column("site_kind", pa.array(kinds, pa.string()))
    return table.append_column("site_layer", pa.array(layers, pa.int32()))


def _apart(name: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+) after L(\d+)", name)
    return (found.group(1), int(found.group(2))) if found else (name, None)


def _spec_from_2(raw: dict[str, Any]) -> dict[str, Any]:
    """`plan["cells_per_arm"]` was keyed by texts: `zero after L2|2,3|recompute|`."""
    plan = raw.get("plan")
    if isinstance(plan, dict) and isinstance(counts := plan.get("cells_per_arm"), dict):
        cells = [_arm_from_2(key).columns | {"n": n} for key, n in counts.items()]
        raw = raw | {"plan": plan | {"cells_per_arm": cells}}
    return raw | {"schema_version": 3}


def _arm_from_2(text: str) -> ArmKey:
    name, slots, after, donors = [*text.split("|"), "", "", ""][:4]
    method, layer = _apart(name)
    edited = [int(k) for k in slots.split(",") if k.isdigit()]
    kind = "fed" if layer is None else "resid"
    row = {"method": method, "slots": edited, "site_kind": kind, "site_layer": layer}
    return ArmKey.of_row(row | {"downstream": after, "donor_stratum": donors})


# version -> what turns a table (or a run.json dict) of that version into one of the next version.
TABLE_MIGRATIONS: dict[int, Callable[[pa.Table], pa.Table]] = {1: _table_from_1, 2: _table_from_2}
SPEC_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _spec_from_1, 2: _spec_from_2}


def table_version(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """The schema version that a shard's metadata names; None where it names none."""
    text = (metadata or {}).get(VERSION_KEY, b"").decode()
    return int(text) if text.isdigit() else None


def migrate(stored: Stored, version: int, steps: Mapping[int, Callable[[Stored], Stored]], where: str) -> Stored:
    """`stored`, written at `version`, as the present version has it.

    Args:
        stored: A table or a `run.json` dict.
        version: The version it was written at.
        steps: `TABLE_MIGRATIONS` or `SPEC_MIGRATIONS`.
        where: The file, for messages.

    Raises:
        RunError: The version is newer than this program knows, or no path leads from it.
    """
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{where} was written by a newer thoughtgraft",
            got=f"schema version {version}",
            expected=f"at most {SCHEMA_VERSION}",
            fix="pip install --upgrade thoughtgraft",
        )
    for step in range(version, SCHEMA_VERSION):
        if step not in steps:
            raise RunError(f"{where} has schema version {version}, from which no path leads to {SCHEMA_VERSION}")
        stored = steps[step](stored)
    return stored


PACKAGES = (
    "thoughtgraft", "torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "datasets", "numpy",
    "pandas", "pyarrow", "scipy", "statsmodels", "scikit-learn", "pydantic", "ray", "wandb",
)  # fmt: skip
GIT_TIMEOUT_S = 5.0


def package_versions() -> dict[str, str]:
    """Installed versions of what can change a number, without importing any of it."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_state() -> dict[str, Any]:
    """`commit` and `dirty` of this project's own repository; empty when it does not run from one."""
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    # An installed copy may lie inside somebody else's repository: that one's commit says nothing.
    if root is None or Path(root).resolve() / "src" / package.name != package:
        return {}
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")  # of the package: run folders beside it are no change
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def collect_provenance() -> dict[str, Any]:
    """The facts of this start: time (UTC), python, platform, processors, package versions, source state."""
    return {
        "started_utc": utc_now(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "versions": package_versions(),
        "source": source_state(),
    }


def without_home(text: str) -> str:
    """The text with the home folder as `~`, as shells read it: run folders are shared, user names need not be."""
    home = os.path.expanduser("~").rstrip("/")  # noqa: PTH111 - Path.home() raises where there is none
    return re.sub(rf"(?<![\w/]){re.escape(home)}(?![\w.-])", "~", text) if home.startswith("/") else text


def utc_now() -> str:
    """The time now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Meter:
    """Measures a process from its making to `finish`."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), _cpu_s()

    def finish(self) -> dict[str, Any]:
        """`wall_s` and `cpu_s` since the start (seconds, children included) and the process's `peak_memory_mb` (MB)."""
        return {
            "ended_utc": utc_now(),
            "wall_s": round(time.monotonic() - self._wall, 3),
            "cpu_s": round(_cpu_s() - self._cpu, 3),
            "peak_memory_mb": _peak_memory_mb(),
        }


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _peak_memory_mb() -> float | None:
    # Linux counts the memory of whoever started a process into its ru_maxrss: a large notebook's, for example.
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return round(int(found[1]) * 1.024e-3, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3 / 1.024), 1)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
