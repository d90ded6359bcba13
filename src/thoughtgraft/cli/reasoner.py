"""The model that a command works on: loaded from its options, with what was passed over and assumed said on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thoughtgraft.models.reasoner import LatentReasoner


def open_model(name: str, **options: Any) -> LatentReasoner:
    """Load a model and say what was passed over, and what was taken for granted since no file or option says it.

    Args:
        name: What `--model` takes.
        options: As `load_model` has them.
    """
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.models.load import load_model
    from thoughtgraft.studies.study import tell_model

    model = load_model(name, **options)
    tell_model(model, Terminal())
    return model
