"""What the hardware can do: matrix products and memory, measured; and what the sweep needs of them, counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from benchmarks.timing import seconds
from benchmarks.workload import Workload
from thoughtgraft.models.reasoner import LatentReasoner


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of the best square product, FLOP/s of products in the model's own shapes, bytes/s of a copy."""

    square: float
    own: float
    copy: float


@dataclass(frozen=True)
class Need:
    """FLOPs that the work needs at least: each question and its clean thoughts once, each row only what differs."""

    matrices: float
    attention: float

    @property
    def total(self) -> float:
        """Both."""
        return self.matrices + self.attention


def _rate(rows: int, inner: int, columns: int, like: torch.Tensor, repeats: int) -> float:
    x, weight = (torch.randn(n, inner, device=like.device).to(like.dtype) for n in (rows, columns))

    def run() -> None:
        for _ in range(repeats):
            linear(x, weight)

    run()
    return 2.0 * rows * inner * columns * repeats / min(seconds(run, like.device) for _ in range(3))


@torch.inference_mode()
def measure_ceilings(model: LatentReasoner, rows: int) -> Ceilings:
    """Measured now, so that other loads on the machine weigh on the ceiling as they do on the engine."""
    like = model.embed(torch.zeros(1, dtype=torch.long, device=model.device))
    gpu = model.device.type == "cuda"
    side = 8192 if gpu else 1024
    block = [tuple(m.weight.shape) for m in model.layers[0].modules() if isinstance(m, torch.nn.Linear)]
    flops = [a * b for a, b in block]
    rates = [_rate(rows, inner, columns, like, 20 if gpu else 4) for columns, inner in block]
    own = sum(flops) / sum(f / r for f, r in zip(flops, rates, strict=True))
    source = torch.ones((1 << 30) if gpu else (1 << 26), dtype=torch.uint8, device=model.device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / min(seconds(lambda: target.copy_(source), model.device) for _ in range(4))
    return Ceilings(_rate(side, side, side, like, 4), own, copy)


def need(model: LatentReasoner, work: Workload) -> Need:
    """Counted for swaps of one slot with what follows recomputed, or for clean runs."""
    config, k = model.lm.config, model.num_latents
    block = sum(m.weight.numel() for m in model.layers.modules() if isinstance(m, torch.nn.Linear))
    projection = sum(m.weight.numel() for m in model.checkpoint.feeder.modules() if isinstance(m, torch.nn.Linear))
    head = model.lm.get_output_embeddings().weight.numel()
    width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
    matrices = attention = 0.0
    for host, prompt in enumerate(work.prompts):
        length = len(prompt)
        matrices += 2 * block * (length + k) + 2 * projection * k
        attention += 4 * width * (length**2 / 2 + sum(length + t + 1 for t in range(k)))
        rows = [s.slot for s in work.swaps if s.host == host] if work.swaps else [k]
        for slot in rows:
            matrices += 2 * block * (k - slot + work.answer) + 2 * projection * max(0, k - slot - 1)
            matrices += 2 * head * work.answer
            attention += 4 * width * sum(length + t + 1 for t in range(slot, k + work.answer))
    return Need(matrices, attention)
