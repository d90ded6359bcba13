"""Losses and gradients are those of the definition: each problem alone, without cache or padding, each token anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from thoughtgraft.tasks.sets.arithmetic import arithmetic
from thoughtgraft.training.config import METHODS, TrainingConfig
from thoughtgraft.training.data import IGNORE, Batch
from thoughtgraft.training.objectives import Objective
from thoughtgraft.training.recipe import load_base, make_encoder, make_objective

STAGES = {"coconut": (0, 1, 2, 5)}


def objective(method: str) -> tuple[Objective, Batch]:
    """A random objective in float64, without RMSNorm's float32 islands, and three problems of different lengths."""
    config = TrainingConfig(
        method=method, num_latent=0 if method in ("direct", "cot") else 6, teacher_steps=1, max_steps=8,
        steps_per_stage=1, bf16=False,
    )  # fmt: skip
    base = load_base("tiny", config)
    encoder = make_encoder(base, config)
    base.lm.set_attn_implementation("sdpa")  # the plain kernel's softmax is another float32 island
    made = make_objective(base, encoder, config).double()
    for module in made.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = lambda x, m=module: (
                m.weight
                * x
                * torch.rsqrt(  # type: ignore[method-assign]
                    x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon
                )
            )
    for name, weight in made.named_parameters():  # larger than at the start of a training, so that thoughts differ
        if weight.ndim == 2:
            weight.data *= 1 if "embed" in name else 4
    problems = sorted(arithmetic("validation")[:16], key=lambda p: len(p.question))[::7]
    return made, encoder(problems)


class Plain:
    """One problem at a time; `read` runs the whole sequence again."""

    def __init__(self, made: Objective, method: str) -> None:
        self.lm, self.made, self.method = made.lm, made, method
        rows = made.lm.get_input_embeddings().num_embeddings
        self.begin, self.end = (rows - 3, rows - 2) if method == "coconut" else (rows - 2, rows - 1)

    def embed(self, ids: Any) -> Tensor:
        return self.lm.get_input_embeddings()(torch.as_tensor(ids))

    def read(self, vectors: Tensor) -> Any:
        return self.lm.model(inputs_embeds=vectors[None], use_cache=False, output_hidden_states=True)

    def thought(self, question: Tensor, count: int) -> Tensor:
        """The question, begin-of-thought, so many thoughts, end-of-thought, as vectors."""
        vectors = torch.cat([self.embed(question), self.embed([self.begin])])
        for slot in range(count):
            state = self.read(vectors).last_hidden_state[0, -1:]
            made = {"coconut": lambda s: s, "pause": lambda s, k=slot: self.made.projection.weight[k][None]}
            vectors = torch.cat([vectors, made.get(self.method, lambda s: self.made.projection(s))(state)])
        return torch.cat([vectors, self.embed([self.end])])

    def forced(self, before: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy of a target after vectors, and each layer's states at the target [L, T, d]."""
        out = self.read(torch.cat([before, self.embed(target)]))
        start = len(before)
        logits = self.lm.lm_head(out.last_hidden_state[0, start - 1 : -1])
        return F.cross_entropy(logits, target, reduction="sum"), torch.stack(out.hidden_states[1:])[:, 0, start:]


def by_definition(made: Objective, method: str, batch: Batch, step: int) -> dict[str, Tensor]:
    plain, config = Plain(made, method), made.config
    sums: dict[str, list[Tensor]] = {"ref_ce": [], "ce": []}
    sizes = {"ref_ce": 0, "ce": 0}
    pairs = []
    for i in range(len(batch.question)):
        question = batch.question[i][batch.question_mask[i].bool()]
        reasoning, answer = (x[i][x[i] != IGNORE] for x in (batch.reasoning, batch.answer))
        if method == "coconut":
            stage = made.stage(step)
            last = stage > config.max_latent_stage
            ends = (reasoning == made.step_end).nonzero().flatten().tolist()
            cut = [0, *(end + 1 for end in ends)][len(ends) if last else min(stage, len(ends))]
            thoughts = config.num_latent if last else stage * config.c_thought
            found = {"ce" if stage else "ref_ce": (plain.thought(question, thoughts), reasoning[cut:])}
        elif method == "cot":
            found = {"ref_ce": (plain.thought(question, 0), reasoning)}
        else:
            found = {"ref_ce": (plain.embed(question), reasoning)}
            if step >= config.teacher_steps:
                found["ce"] = (plain.thought(question, config.num_latent), answer)
        states = {}
        for name, (before, target) in found.items():
            loss, states[name] = plain.forced(before, target)
            sums[name].append(loss)
            sizes[name] += len(target)
        if method not in ("coconut", "cot") and "ce" in states:
            pairs.append(
                (states["ce"][:, batch.answer_colon[i]], states["ref_ce"][:, batch.reasoning_colon[i]].detach())
            )
    losses = {name: torch.stack(found).sum() / sizes[name] for name, found in sums.items() if found}
    if method in ("coconut", "cot"):
        return {**losses, "loss": sum(losses.values())}
    losses["loss"] = config.ref_loss_factor * losses["ref_ce"]
    if pairs:
        student, teacher = (torch.stack(side, 1) for side in zip(*pairs, strict=True))  # [L, B, d]
        each = [F.smooth_l1_loss(s.float(), t.float()) / t.float().std() for s, t in zip(student, teacher, strict=True)]
        losses["distill"] = torch.stack(each).mean()
        losses["loss"] = losses["loss"] + losses["ce"] + config.distill_loss_factor * losses["distill"]
    return losses


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_those_of_the_definition(method: str) -> None:
    made, batch = objective(method)
    for step in STAGES.get(method, (0, 4)):
        gradients = []
        for losses in (made(batch, step), by_definition(made, method, batch, step)):
            made.zero_grad()
            losses["loss"].backward()
            gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
            if len(gradients) == 1:
                first = losses
        assert first.keys() == losses.keys()
        for name in first:
            # Losses are computed in float32, whatever the model is in.
            assert first[name].item() == pytest.approx(losses[name].item(), rel=1e-6), name
        assert gradients[0].keys() == gradients[1].keys()
        largest = max(float(g.abs().max()) for g in gradients[1].values())
        for name, wanted in gradients[1].items():
            assert (gradients[0][name] - wanted).abs().max() < 1e-6 * largest, (step, name)
    assert largest > 1e-3
