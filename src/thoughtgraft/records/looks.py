"""Earlier looks: the run folders beside a new run that asked the same model some of the same problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thoughtgraft.errors import RunError, first_line
from thoughtgraft.files import DAMAGE_FIX

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


def _named(look: Look, *, alone: bool) -> str:
    facts = [] if alone else [f"{look.hosts} hosts"]
    facts += [f"there with another {' and '.join(look.differs)}"] if look.differs else []
    return f"{look.run} ({'; '.join(facts)})" if facts else look.run
