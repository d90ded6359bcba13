"""A pilot beside the run it prepares: its problems are left out, its variances size the run, its verdict is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thoughtgraft.errors import RunError

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner
    from thoughtgraft.runs import Run
    from thoughtgraft.studies.sizing import Sizing


@dataclass(frozen=True)
class Pilot:
    """A finished pilot, opened."""

    run: Run

    @classmethod
    def open(cls, path: Path, problems: str) -> Pilot:
        """Open it, and refuse one that cannot speak for a run on these problems.

        Raises:
            RunError: It is not a run, drew from other problems, or failed its gates.
        """
        from thoughtgraft.records.provenance import without_home
        from thoughtgraft.runs import load_run

        run = load_run(path)
        if run.spec.study != "resampling":
            fix = "give the folder of a `run resampling --preset pilot`"
            raise RunError(f"{path} is no pilot", got=f"an {run.spec.study} run", expected="a resampling run", fix=fix)
        if run.spec.problems != without_home(problems):
            fix = "give the pilot of these problems, or leave --pilot out"
            raise RunError("the pilot drew from other problems", got=run.spec.problems, expected=problems, fix=fix)
        verdict = run.pilot()
        if verdict.verdict == "INVALID":
            fix = "repair the cause and run the pilot again, or leave --pilot out"
            raise RunError(f"the pilot {path} is INVALID", got=verdict.reason, expected="GO or NO-GO", fix=fix)
        return cls(run)

    @property
    def used(self) -> frozenset[str]:
        """Ids of its problems."""
        return frozenset(str(name) for name in self.run.problems()["id"])

    def check_model(self, model: LatentReasoner) -> None:
        """Refuse a pilot of another model or protocol: its variances say nothing about this one.

        Raises:
            RunError: It is of another.
        """
        spec = self.run.spec
        if spec.model_hash != model.model_hash:
            raise RunError(
                "the pilot is of another model",
                got=f"{spec.model}, {spec.protocol}, {spec.dtype}, {spec.num_latents} thoughts ({spec.model_hash})",
                expected=f"{model.name}, {model.protocol.name}, {model.dtype_name}, {model.num_latents} thoughts "
                f"({model.model_hash})",
                fix="run a pilot of this model, or leave --pilot out",
            )

    def sizing(self, n_hosts: int, n_donors: int) -> Sizing:
        """What a run of this size can detect, by the pilot's variances."""
        from thoughtgraft.studies.sizing import from_pilot

        return from_pilot(self.run.records(), n_hosts, n_donors)

    def facts(self, sizing: Sizing) -> dict[str, Any]:
        """What the new run's run.json says of it."""
        mde = None if sizing.mde_pp != sizing.mde_pp else round(sizing.mde_pp, 3)
        found = {"run_id": self.run.spec.run_id, "verdict": self.run.pilot().verdict, "needed_hosts": sizing.needed}
        return found | {"worst_slot": sizing.worst_slot, "mde_pp": mde}


def sizing_line(sizing: Sizing, n_hosts: int, n_donors: int) -> str:
    """The sample size in words: the smallest effect it finds, and what more would need."""
    size = f"{n_hosts} hosts x {n_donors} donors"
    if sizing.mde_pp != sizing.mde_pp:
        return f"smallest impact found with 80% power: undefined ({sizing.basis})"
    if sizing.mde_pp > 100:
        return f"with {size} not even an impact of 100 pp would be found with 80% power ({sizing.basis})"
    line = f"smallest impact of one slot found with 80% power: {sizing.mde_pp:.1f} pp, with {size} ({sizing.basis})"
    return line if sizing.needed is None else f"{line}; {sizing.needed} hosts would find 5 pp"
