"""Checks of the model itself: its weights against its files, its answers against those that its card records."""

from __future__ import annotations

from thoughtgraft.engine.verify.certificate import Check, at_most
from thoughtgraft.models.reasoner import LatentReasoner

_SHOWN = 3


def weights(model: LatentReasoner) -> Check | str:
    """Count the parameters that are not what the files say; a note where the adapter cannot tell.

    Raises:
        CheckpointError: The files are gone or damaged.
    """
    audit = model.audit()
    if audit is None:
        return "weights were not compared with their files: this adapter cannot read them again"
    detail = f"{audit.parameters} parameters"
    if audit.wrong:
        more = ", ..." if len(audit.wrong) > _SHOWN else ""
        detail += f"; not the file's: {', '.join(audit.wrong[:_SHOWN])}{more}"
    if not audit.same_hash:
        detail += "; the files have changed since they were loaded"
    return at_most("weights are the file's", float(len(audit.wrong) + (not audit.same_hash)), 0, detail)
