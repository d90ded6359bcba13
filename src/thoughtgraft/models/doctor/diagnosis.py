"""What the doctor says: facts, findings, and whether the checkpoint would load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from thoughtgraft.errors import ThoughtgraftError
from thoughtgraft.models.assumed import Assumption

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a checkpoint.

    Attributes:
        level: `error`: it does not load; `warning`: it loads, and may mislead; `note`: good to know.
        what: What was found.
        got: What is there.
        expected: What would be right.
        fix: What to do, a command where there is one.
    """

    level: Level
    what: str
    got: str = ""
    expected: str = ""
    fix: str = ""

    @classmethod
    def refusal(cls, error: ThoughtgraftError) -> Finding:
        """The finding for what loading raises."""
        got, expected = ("" if x is None else str(x) for x in (error.got, error.expected))
        return cls("error", error.what, got, expected, error.fix or "")


@dataclass(frozen=True)
class Diagnosis:
    """The whole examination.

    Attributes:
        name: The checkpoint as the user named it.
        loads: Whether `load_model` would load it with the same base and tokenizer.
        family: What kind of checkpoint its names make it.
        facts: What was read, by name; a fact that cannot be known says so.
        findings: Errors, warnings and notes, the first error being what `load_model` says.
        published: Accuracies published for such a checkpoint, to compare with.
        assumptions: What a run would take for granted, since no file says it.
    """

    name: str
    loads: bool
    family: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    published: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    def __post_init__(self) -> None:
        errors = any(finding.level == "error" for finding in self.findings)
        if errors == self.loads:
            raise ValueError(f"loads={self.loads} beside {'an' if errors else 'no'} error")

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        return {**asdict(self), "facts": dict(self.facts)}
