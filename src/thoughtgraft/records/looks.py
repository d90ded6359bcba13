"""Earlier looks: the run folders beside a new run that asked the same model some of the same problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.errors import RunError, first_line
from thoughtgraft.records.jsonfile import DAMAGE_FIX
from thoughtgraft.records.layout import PROBLEMS_FILE, SPEC_FILE
from thoughtgraft.records.provenance import without_home

if TYPE_CHECKING:
    from thoughtgraft.records.spec import RunSpec

Content = tuple[str, str | None]
"""A problem by what was asked: its question and its gold answer as text. Ids may differ between files."""

_NAMED = 3
_FORBID = {"extra": "forbid"}


@dataclass(frozen=True)
class Look:
    """An earlier run of the same model and study under the same protocol.

    Attributes:
        run: Its folder, as seen from the one that the new run's folder lies in.
        run_id: Its run id; the new run's own where the two are one run, made twice.
        differs: The parts of the model that were other ones there, such as its dtype; none where the run, of an
            earlier version, does not say them.
        n_hosts: Its hosts.
        hosts: How many of the new run's hosts were hosts there (may have been, where only right answers made a host).
        donors: How many of the new run's donors could donate there.
    """

    __pydantic_config__ = _FORBID

    run: str
    run_id: str
    differs: tuple[str, ...]
    n_hosts: int
    hosts: int
    donors: int


@dataclass(frozen=True)
class Looks:
    """What had been looked at when a run began.

    Attributes:
        n_hosts: The new run's hosts.
        n_donors: Its distinct donors.
        hosts: How many of its hosts were seen in at least one of the earlier runs.
        donors: How many of its donors were.
        runs: Every earlier run found, those that share nothing among them.
        notes: Folders that could not be read, each with the reason.
    """

    __pydantic_config__ = _FORBID

    n_hosts: int
    n_donors: int
    hosts: int
    donors: int
    runs: tuple[Look, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any], file: Path) -> Looks | None:
        """From a `run.json` that was read without the validating model; None where it does not say.

        Raises:
            RunError: What it says is damaged.
        """
        if (found := spec.get("looks")) is None:
            return None
        try:
            runs = tuple(Look(**{**look, "differs": tuple(look["differs"])}) for look in found["runs"])
            return cls(**{**found, "runs": runs, "notes": tuple(found["notes"])})
        except (TypeError, KeyError) as error:
            raise RunError(f"{file} is damaged", got=f"looks: {first_line(error)}", fix=DAMAGE_FIX) from error

    @property
    def sharing(self) -> tuple[Look, ...]:
        """The earlier runs that share a host or a donor, those with the most hosts in common first."""
        return tuple(sorted((x for x in self.runs if x.hosts or x.donors), key=lambda x: (-x.hosts, -x.donors, x.run)))

    @property
    def summary(self) -> str:
        """One sentence: how much was seen before, and where; empty where nothing was."""
        if not self.sharing:
            return ""
        seen = f"{self.hosts} of these {self.n_hosts} hosts"
        if self.n_donors:
            seen += f" and {self.donors} of their {self.n_donors} donors"
        shown = [_named(look, alone=len(self.sharing) == 1) for look in self.sharing[:_NAMED]]
        if more := len(self.sharing) - _NAMED:
            shown += [f"{more} more"] if more > 0 else []
        places = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
        return f"{seen} were seen before, in {places}"

    def lines(self, run_id: str) -> list[str]:
        """What to say of it, in sentences; none where nothing was seen before and every folder could be read.

        Args:
            run_id: The new run's.
        """
        said = []
        if self.sharing:
            said.append(f"{self.summary}.")
            smaller = [x for x in self.sharing if x.hosts and x.n_hosts < self.n_hosts and x.run_id != run_id]
            again = [look.run for look in self.sharing if look.run_id == run_id]
            if again:
                said.append(f"{again[0]} is this very run, so what agrees between the two is no second finding.")
            elif smaller:
                most = max(smaller, key=lambda look: look.n_hosts)
                said.append(
                    f"A larger number of hosts in a new folder is a second look ({most.run} had {most.n_hosts}): no "
                    "interval and no verdict allows for having looked before."
                )
            else:
                said.append("No interval and no verdict allows for having looked before.")
        return said + [f"Not counted among earlier looks: {note}." for note in self.notes]


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


def _named(look: Look, *, alone: bool) -> str:
    facts = [] if alone else [f"{look.hosts} hosts"]
    facts += [f"there with another {' and '.join(look.differs)}"] if look.differs else []
    return f"{look.run} ({'; '.join(facts)})" if facts else look.run


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
    from thoughtgraft.records.spec import read_spec

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
        table = pq.read_table(file, columns=["question", "gold"])
        problems = list(zip(table["question"].to_pylist(), table["gold"].to_pylist(), strict=True))
        if triples := plan.get("triples"):
            return {problems[h] for h, _, _ in triples}, {problems[d] for h, d, _ in triples if d != h}
        # Which answers were right is not read: where that made a host, every problem may have been one.
        hosts = problems if plan.get("only_correct") else problems[: plan.get("hosts")]
        donate = any("stratum" in arm for arm in plan.get("arms", ()))
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise RunError(f"{file} is damaged", got=first_line(error)) from error
    return set(hosts), set(problems) if donate else set()
