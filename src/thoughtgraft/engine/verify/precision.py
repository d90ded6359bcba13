"""Half-precision models are checked in float32, where rounding cannot hide a mistake; their weights are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from thoughtgraft.models.live import as_it_is
from thoughtgraft.models.reasoner import LatentReasoner

HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: LatentReasoner) -> Iterator[None]:
    """Compute in float32 for a while, where the model computes in half precision; every value is kept exactly."""
    halves = {p: p.data for part in model.parts for p in part.parameters() if p.dtype in HALF}
    try:
        for parameter, value in halves.items():
            parameter.data = value.float()
        with as_it_is(model) if halves else nullcontext():
            yield
    finally:
        for parameter, value in halves.items():
            parameter.data = value
