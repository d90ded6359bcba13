"""What a training took: parameters, and the floating-point operations of its forward passes."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from thoughtgraft.training.data import Batch
from thoughtgraft.training.objective import Objective


def parameter_count(objective: Objective) -> int:
    """Weights that are trained; tied ones count once."""
    return sum(p.numel() for p in objective.parameters() if p.requires_grad)


@torch.no_grad()
def forward_flops(objective: Objective, batch: Batch, steps: int) -> int:
    """Floating-point operations of all forward passes of a training, matrix products only.

    Steps of one phase cost the same on the same problems, so each phase is counted once, on `batch`, and scaled to the
    recipe's batch. A backward pass costs about twice its forward pass, for every method.

    Args:
        objective: The model with its losses.
        batch: Problems like those that it was trained on.
        steps: Optimizer steps taken.
    """
    config, device = objective.config, next(objective.parameters()).device
    seen = config.per_device_train_batch_size * config.gradient_accumulation_steps
    share = seen / len(batch.question)
    phases = Counter(objective.phase(step) for step in range(steps))
    first = {phase: next(s for s in range(steps) if objective.phase(s) == phase) for phase in phases}
    total = 0.0
    for phase, count in phases.items():
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
        with FlopCounterMode(display=False) as counter, autocast:
            objective(batch.to(device), first[phase])
        total += count * share * counter.get_total_flops()
    return round(total)
