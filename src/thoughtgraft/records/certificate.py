"""The certificate: the checks that model, protocol and engine passed or failed, as made, kept, read and shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from thoughtgraft.errors import RunError
from thoughtgraft.records.spec import CERTIFICATE_FILE

if TYPE_CHECKING:
    from thoughtgraft.records.store import RunStore

State = Literal["passed", "failed", "off", "missing"]


@dataclass(frozen=True)
class Check:
    """One check: what it proves, the figure it gave, the threshold, and what follows if it fails.

    `detail` says where the figure comes from, for example at which slot; NaN and infinite figures never pass. A check
    that was made on reading has words for a figure.
    """

    name: str
    proves: str
    figure: float | str
    threshold: str
    passed: bool
    consequence: str
    detail: str = ""

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Self:
        """From certificate.json; what a file of another version does not say is empty."""
        names = ("proves", "threshold", "consequence", "detail")
        texts = {name: "" if raw.get(name) is None else str(raw[name]) for name in names}
        figure = raw.get("figure")
        figure = math.nan if figure is None else figure if isinstance(figure, int | float) else str(figure)
        return cls(name=str(raw.get("name", "unnamed")), figure=figure, passed=bool(raw.get("passed")), **texts)

    @property
    def shown(self) -> str:
        """The figure as text."""
        if isinstance(self.figure, str):
            return self.figure
        return f"{self.figure:.3g}" if math.isfinite(self.figure) else "undefined"

    def to_json(self) -> dict[str, Any]:
        """For certificate.json; an undefined figure is null."""
        undefined = isinstance(self.figure, float) and not math.isfinite(self.figure)
        return asdict(self) | ({"figure": None} if undefined else {})


@dataclass(frozen=True)
class Certificate:
    """The outcome of all checks on one model under one protocol.

    Attributes:
        model: The model's name.
        protocol: The rule of inference.
        dtype: What the model computes in.
        kind: `core` or `full`.
        checks: In the order in which they ran.
        model_hash: The model's identity, as in run.json.
        plan_hash: The plan whose arms were tried, as in run.json; empty where no plan was given.
        num_latents: Slots, K.
        dead_slots: 0-based slots whose edits cannot reach the output: structurally null, never 0%.
        shared_slots: 0-based slots at which every problem is fed the same vector: nothing of the problem is in it, and
            a swap there is the identity.
        notes: What was not checked, and why; how it was computed.
        absent: Why there is none: `off` where the checks were switched off on purpose, `missing` where nobody certified
            the run; empty where there is one.
        said: What certificate.json says of itself as a whole; a file that says "failed" failed, whatever its checks.
    """

    model: str = ""
    protocol: str = ""
    dtype: str = ""
    kind: str = ""
    checks: tuple[Check, ...] = ()
    model_hash: str = ""
    plan_hash: str = ""
    num_latents: int = 0
    dead_slots: tuple[int, ...] = ()
    shared_slots: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    absent: Literal["", "off", "missing"] = ""
    said: bool = True

    @property
    def passed(self) -> bool:
        """Whether there is one, and every check passed."""
        return not self.absent and self.said and all(check.passed for check in self.checks)

    @property
    def state(self) -> State:
        """passed, failed, off or missing."""
        return self.absent or ("passed" if self.passed else "failed")

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if not check.passed)

    @property
    def gates(self) -> dict[str, bool]:
        """Outcomes of the gates that records cannot show; a gate without evidence is absent.

        A gate is named by a check of its name or one that begins so ("transplant"); the whole certificate is one. To
        switch it off is a decision that every page shows; to have none is a failure.
        """
        if self.absent:
            return {} if self.absent == "off" else {"certificate": False}
        transplant = [check.passed for check in self.checks if check.name.lower().startswith("transplant")]
        return {"certificate": self.passed} | ({"transplant": all(transplant)} if transplant else {})

    @property
    def badge(self) -> tuple[str, str]:
        """(tone, words) for the head of a page."""
        n = len(self.checks)
        words = {
            "passed": f"certificate passed: {n} of {n} checks",
            "failed": f"certificate FAILED: {', '.join(self.failed) or 'no check is named'}",
            "off": "not certified: the checks were switched off",
            "missing": "not certified: the run has no certificate",
        }
        return {"passed": "good", "failed": "bad"}.get(self.state, "open"), words[self.state]

    def lines(self) -> list[str]:
        """For a terminal: its outcome, then a line for each failed check, then one for each note."""
        good, n = len(self.checks) - len(self.failed), len(self.checks)
        lines = [f"certificate: {'passed' if self.passed else 'FAILED'} ({good} of {n} checks: {self.kind})"]
        for check in self.checks:
            if not check.passed:
                detail = f" ({check.detail})" if check.detail else ""
                wanted = f"{check.shown}, wanted {check.threshold}{detail}"
                lines.append(f"  {check.name}: {wanted}; otherwise {check.consequence}")
        return [*lines, *(f"  {note}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """For certificate.json."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("absent", "said", "checks")}
        lists = {name: list(value) for name, value in found.items() if isinstance(value, tuple)}
        return {"passed": self.passed} | found | lists | {"checks": [check.to_json() for check in self.checks]}


def read_certificate(store: RunStore) -> Certificate:
    """A run's certificate; one of another model or plan than the run's has failed, since it may have been copied.

    Raises:
        RunError: `certificate.json` is there but is not a certificate.
    """
    if not (store.path / CERTIFICATE_FILE).is_file():
        plan, made = store.spec.plan, store.spec.provenance
        return Certificate(absent="off" if "off" in (plan.get("certify"), made.get("certify")) else "missing")
    raw = store.read_json(CERTIFICATE_FILE)
    if not isinstance(raw, Mapping) or not isinstance(raw.get("passed"), bool):
        raise RunError(
            f"{store.path / CERTIFICATE_FILE} is damaged",
            got="no field 'passed' that is true or false",
            fix="run the same command again to certify anew",
        )
    checks = [Check.of_json(check) for check in raw.get("checks") or () if isinstance(check, Mapping)]
    dead, shared = (tuple(int(k) for k in raw.get(name) or ()) for name in ("dead_slots", "shared_slots"))
    texts = (str(raw.get(name) or "") for name in ("model", "protocol", "dtype", "kind", "model_hash", "plan_hash"))
    model, protocol, dtype, kind, model_hash, plan_hash = texts
    return Certificate(
        model=model,
        protocol=protocol,
        dtype=dtype,
        kind=kind,
        model_hash=model_hash,
        plan_hash=plan_hash,
        checks=(*checks, *_of_another_run(raw, store)),
        num_latents=int(raw.get("num_latents") or 0),
        dead_slots=dead,
        shared_slots=shared,
        notes=tuple(str(note) for note in raw.get("notes") or ()),
        said=raw["passed"],
    )


def _of_another_run(raw: Mapping[str, Any], store: RunStore) -> list[Check]:
    """A failed check where the certificate names another model or plan than the run does."""
    of_model = "the certificate was made with the run's model, protocol, dtype and number of thoughts"
    kinds = (
        ("model_hash", store.spec.model_hash, of_model, "another model or protocol was certified, not this one"),
        ("plan_hash", store.spec.plan_hash, "the certificate tried the run's arms", "another plan was tried, not this"),
    )
    return [
        Check("belongs to this run", proves, str(raw[name]), f"= {wanted}", False, consequence)
        for name, wanted, proves, consequence in kinds
        if raw.get(name) not in (None, "", wanted)
    ]
