"""The logit lens: a state through the model's own unembedding."""

from __future__ import annotations

from torch import Tensor

from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.readouts.readout import Readout


class Lens(Readout):
    """The logit lens, as the official CODI probe has it; a residual stream goes through the final norm first."""

    words = "through the unembedding"

    def logits(self, model: LatentReasoner, states: Tensor, layer: int | None) -> Tensor:
        """The output layer's logits."""
        return model.unembed(states if layer is None else model.final_norm(states))


READOUT = Lens()
