"""What others do, written afresh: Hugging Face's own attention (sdpa) and `DynamicCache`.

All of them get what the engine gets, and more than the originals had: LoRA merged, masks and positions right, logits
computed only where a token is chosen. So they give the same answers, and the comparison is one of work, not of bugs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.workload import Swap, Workload
from thoughtgraft.models.reasoner import LatentReasoner, attention_implementation


def origin(model: LatentReasoner, work: Workload, cells: Sequence[Swap]) -> list[tuple[int, ...]]:
    """The origin's algorithm: batch 1, the question encoded again for each cell."""
    return [answer for cell in cells for answer in official(model, work, [cell])]


@torch.inference_mode()
def official(model: LatentReasoner, work: Workload, cells: Sequence[Swap]) -> list[tuple[int, ...]]:
    """One left-padded batch, as the official evaluation; each row's question is encoded again."""
    with attention_implementation(model.lm, "sdpa"):
        state = _Batch(model, work, [c.host for c in cells])
        return state.think_and_answer(work, cells)


@torch.inference_mode()
def expanded(model: LatentReasoner, work: Workload, hosts: Sequence[int]) -> list[tuple[int, ...]]:
    """Each question is encoded once, its keys and values are repeated for each of its cells."""
    cells = [s for s in work.swaps if s.host in set(hosts)]
    with attention_implementation(model.lm, "sdpa"):
        state = _Batch(model, work, hosts)
        state.repeat([list(hosts).index(c.host) for c in cells])
        return state.think_and_answer(work, cells)


def batches(work: Workload, size: int) -> list[list[Swap]]:
    """The cells in the order of a data loader; a clean run is a swap of nothing."""
    cells = list(work.swaps) or [Swap(host, host, -1) for host in range(len(work.prompts))]
    return [cells[i : i + size] for i in range(0, len(cells), size)]


class _Batch:
    def __init__(self, model: LatentReasoner, work: Workload, hosts: Sequence[int]) -> None:
        self.model, device = model, model.device
        prompts = [work.prompts[h] for h in hosts]
        width = max(map(len, prompts))
        ids = torch.tensor([(model.pad_id,) * (width - len(p)) + p.ids for p in prompts], device=device)
        self.mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        self.next = self.mask.sum(1)
        positions = (self.mask.cumsum(1) - 1).clamp_min(0)
        self.cache = DynamicCache(config=model.lm.config)
        self.hidden = self._forward(model.embed(ids), positions)

    def repeat(self, index: Sequence[int]) -> None:
        """Row `index[i]` becomes row i, physically copied."""
        rows = torch.tensor(index, device=self.mask.device)
        self.cache.batch_select_indices(rows)
        self.mask, self.next, self.hidden = self.mask[rows], self.next[rows], self.hidden[rows]

    def think_and_answer(self, work: Workload, cells: Sequence[Swap]) -> list[tuple[int, ...]]:
        donors = torch.tensor([c.donor for c in cells], device=self.mask.device)
        slots = torch.tensor([c.slot for c in cells], device=self.mask.device)
        for slot in range(self.model.num_latents):
            fed = self.model.project(self.hidden, slot)
            fed = torch.where((slots == slot)[:, None], work.fed[donors, slot], fed)
            self._step(fed)
        token = torch.full_like(self.next, self.model.end_of_thought)
        eos = torch.tensor(self.model.decoding.ends, device=token.device)
        ids: list[Tensor] = []
        ended = torch.zeros_like(token, dtype=torch.bool)
        for _ in range(work.answer):
            self._step(self.model.embed(token))
            logits = self.model.unembed(self.hidden)
            logits[:, list(self.model.forbidden_ids)] = -torch.inf
            token = logits.argmax(-1)
            ids.append(token)
            ended |= torch.isin(token, eos)
            if bool(ended.all()):
                break
        return [_until(row, self.model.decoding.ends) for row in torch.stack(ids, 1).tolist()]

    def _step(self, embeds: Tensor) -> None:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        self.hidden = self._forward(embeds[:, None], self.next[:, None])
        self.next = self.next + 1

    def _forward(self, embeds: Tensor, positions: Tensor) -> Tensor:
        out = self.model.lm.base_model(
            inputs_embeds=embeds,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]


def _until(ids: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    return tuple(ids[: next((n for n, token in enumerate(ids) if token in ends), len(ids))])
