"""Earlier runs beside a new one: which asked the same hosts and donors of the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thoughtgraft.errors import RunError, first_line
from thoughtgraft.records.looks import Look, Looks
from thoughtgraft.records.spec import PROBLEMS_FILE, SPEC_FILE, RunSpec, read_spec, without_home

Content = tuple[str, str | None]
"""A problem by what was asked: its question and its gold answer as text. Ids may differ between files."""


def find_looks(
    out: Path, spec: RunSpec, hosts: Sequence[Content], donors: Sequence[Content], beside: Sequence[Path] = ()
) -> Looks:
    """Count what runs beside a new one share with it; only `run.json` and the problems' texts are read.

    Args:
        out: The new run's folder, which need not exist.
        spec: What its run.json will say.
        hosts: Its hosts.
        donors: Its donors.
        beside: Run folders, or folders of runs, to look at beside the folder that `out` lies in.

    Returns:
        The count; a folder that cannot be read is a note in it, never an error.
    """
    found: list[Look] = []
    notes: list[str] = []
    seen_hosts: set[Content] = set()
    seen_donors: set[Content] = set()
    for folder in _folders(out, beside, notes):
        try:
            other = _same_study(folder, spec)
            if other is None:
                continue
            their_hosts, their_donors = _asked(folder, other.plan)
        except RunError as error:
            notes.append(error.what.replace(str(folder), _seen_from(out, folder)))
            continue
        look = Look(
            run=_seen_from(out, folder),
            run_id=other.run_id,
            differs=_differing(spec.model_identity, other.model_identity),
            n_hosts=other.n_hosts,
            hosts=sum(host in their_hosts for host in hosts),
            donors=sum(donor in their_donors for donor in donors),
        )
        found.append(look)
        seen_hosts |= their_hosts
        seen_donors |= their_donors
    return Looks(
        n_hosts=len(hosts),
        n_donors=len(donors),
        hosts=sum(host in seen_hosts for host in hosts),
        donors=sum(donor in seen_donors for donor in donors),
        runs=tuple(found),
        notes=tuple(map(without_home, notes)),
    )


def _seen_from(out: Path, folder: Path) -> str:
    """A folder's name from the one that `out` lies in; elsewhere its last two parts: pages are shared, machines not."""
    here, there = out.resolve().parent, folder.resolve()
    if there != here and there.is_relative_to(here):
        return there.relative_to(here).as_posix()
    return "/".join(there.parts[-2:])


def _folders(out: Path, beside: Sequence[Path], notes: list[str]) -> Iterator[Path]:
    """The run folders beside `out`, each once, by name; what holds none though it was given is noted."""
    seen = {out.resolve()}
    for place, given in ((out.parent, False), *((place, True) for place in beside)):
        try:
            folders = [folder for folder in (place, *sorted(place.iterdir())) if (folder / SPEC_FILE).is_file()]
        except OSError as error:
            if given:
                notes.append(f"{_seen_from(out, place)} cannot be read ({error.strerror or first_line(error)})")
            continue
        if given and not folders:
            notes.append(f"{_seen_from(out, place)} holds no run")
        for folder in folders:
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder


def _same_study(folder: Path, spec: RunSpec) -> RunSpec | None:
    """The spec of a run that asked the same of the same weights; None for any other.

    Under another dtype or number of thoughts, too, the hosts were looked at. A run that does not say its weights is
    known by the model's name.
    """
    other = read_spec(folder)
    mine, theirs = spec.model_identity, other.model_identity
    same = mine["weights"] == theirs["weights"] if mine and theirs else other.model == spec.model
    return other if same and (other.study, other.protocol) == (spec.study, spec.protocol) else None


def _differing(mine: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The parts in which two models differ; none where one of them does not say them."""
    return tuple(k for k in sorted({*mine, *theirs}) if mine.get(k) != theirs.get(k)) if mine and theirs else ()


def _asked(folder: Path, plan: Mapping[str, Any]) -> tuple[set[Content], set[Content]]:
    """Hosts and possible donors of a stored run.

    Raises:
        RunError: Its problems are missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / PROBLEMS_FILE
    if not file.is_file():
        raise RunError(f"{folder} has not stored its problems")
    try:
        table = pq.read_table(file, columns=["id", "question", "gold"])
        problems = list(zip(table["question"].to_pylist(), table["gold"].to_pylist(), strict=True))
        if triples := plan.get("triples"):
            place = {name: i for i, name in enumerate(table["id"].to_pylist())}
            pairs = {(place.get(host, host), place.get(donor, donor)) for host, donor, _ in triples}
            return {problems[h] for h, _ in pairs}, {problems[d] for h, d in pairs if d != h}
        # Which answers were right is not read: where that made a host, every problem may have been one.
        hosts = problems if plan.get("only_correct") else problems[: plan.get("hosts")]
        donate = any("stratum" in arm for arm in plan.get("arms", ()))
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise RunError(f"{file} is damaged", got=first_line(error)) from error
    return set(hosts), set(problems) if donate else set()
