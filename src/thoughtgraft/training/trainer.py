"""The training loop: schedule, accumulation, checkpoints to the step, log, samples; it knows no objective's insides."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from thoughtgraft.errors import ModelError, first_line
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.training.config import LOG, TrainingConfig
from thoughtgraft.training.data import Batch, Encoder, batches, problem_stream
from thoughtgraft.training.lora import GrownEmbedding, learned
from thoughtgraft.training.objectives import Objective

STATE = "state.pt"
SAMPLES = "samples.jsonl"
SHOWN = 4
"""Validation problems whose answers are written to `samples.jsonl` at each evaluation."""


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate at a 0-based optimizer step: warm-up then constant alone with the teacher, then warm-up and cosine."""
    if step < config.teacher_steps:
        return config.teacher_learning_rate * min(1.0, (step + 1) / 100)
    done, total = step - config.teacher_steps, max(config.max_steps, 1)
    warmup = max(1, round(config.warmup_ratio * total))
    if done < warmup:
        return config.learning_rate * (done + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(total - warmup, 1)))


def make_optimizers(objective: Objective, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the model and AdamW for the rest.

    Muon: Jordan et al. 2024; its step is scaled to AdamW's size (Moonshot 2025), so both take one learning rate.
    """
    trained = list(learned(objective).values())
    tables = [module.weight for module in objective.modules() if isinstance(module, nn.Embedding)]
    tables += [module.rows for module in objective.modules() if isinstance(module, GrownEmbedding)]
    embeddings = [p for p in trained if any(p is table for table in tables)]
    matrices = [p for p in trained if p.ndim == 2 and all(p is not e for e in embeddings)]
    vectors = [p for p in trained if p.ndim != 2]
    if config.optim == "muon":
        muon = torch.optim.Muon(matrices, lr=1.0, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        matrices = []
    groups = [
        {"params": [*embeddings, *matrices], "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    return [adamw, muon] if config.optim == "muon" else [adamw]


class Trainer:
    """Trains one objective and writes `state.pt`, `log.jsonl` and `samples.jsonl` into `out`; run again, it continues.

    Args:
        objective: The model with its losses.
        encoder: Turns problems into batches.
        problems: The training set; None draws from the arithmetic generator without end.
        validation: Problems that the curves are measured on.
        config: The recipe; a resumed run must have the same, and the same base, problems and validation problems.
        out: The folder of this run.
        device: Where to train.
        base: The name of the model that the objective was made from.
    """

    def __init__(
        self,
        objective: Objective,
        encoder: Encoder,
        problems: ProblemSet | None,
        validation: ProblemSet,
        config: TrainingConfig,
        out: Path,
        device: torch.device,
        base: str = "",
    ) -> None:
        self.objective, self.encoder, self.config = objective.to(device), encoder, config
        self.problems, self.validation, self.out, self.device = problems, validation, out, device
        self.optimizers = make_optimizers(self.objective, config)
        self.step = 0
        self.data = {
            "base": base,
            "problems": "arithmetic:train" if problems is None else problems.content_hash,
            "validation": validation.content_hash,
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = "choose a folder that you may write to"
            raise ModelError(f"{out} cannot be written", got=str(error), fix=fix) from error
        if not (out / STATE).exists():
            self._begin()
        for lines in (out / LOG, out / SAMPLES):
            if lines.exists() and not lines.read_bytes().endswith(b"\n"):  # a crash cut the last one off
                lines.write_bytes(lines.read_bytes() + b"\n")
        if (out / STATE).exists():
            self._resume()

    def run(self, stop: Callable[[], bool] | None = None) -> None:
        """Train to the recipe's last step.

        Args:
            stop: Asked between two steps: whether to save and end here.

        Raises:
            KeyboardInterrupt: `stop` said so.
        """
        config = self.config
        torch.manual_seed(config.seed + self.step)
        stream = batches(
            problem_stream(self.problems, config.seed),
            self.encoder,
            config.per_device_train_batch_size,
            skip=self.step * config.gradient_accumulation_steps,
        )
        bar = tqdm(total=config.total_steps, initial=self.step, desc="training", unit="step")
        while self.step < config.total_steps:
            if stop is not None and stop():
                self.save()
                raise KeyboardInterrupt
            losses = self._optimize(stream)
            self.step += 1
            bar.update()
            if self.step % config.logging_steps == 0:
                figures = {name: round(value.item(), 5) for name, value in losses.items()}
                bar.set_postfix(figures)
                self._log(figures)
            if self.step % config.eval_steps == 0 or self.step == config.total_steps:
                bar.set_description("validating")
                self._log(self.evaluate())
                self._write_samples()
                bar.set_description("training")
            if self.step % config.save_steps == 0 or self.step == config.total_steps:
                self.save()
        bar.close()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Accuracy on the validation problems: `explicit` (steps written out) and `latent` (from the thoughts)."""
        hits: dict[str, list[Tensor]] = {}
        problems = list(self.validation)
        size = 4 * self.config.per_device_train_batch_size  # no gradients are kept
        for start in range(0, len(problems), size):
            with self._autocast():
                exact = self.objective.exact(self.encoder(problems[start : start + size]).to(self.device))
            for name, values in exact.items():
                hits.setdefault(name, []).append(values.float())
        return {name: round(torch.cat(values).mean().item(), 4) for name, values in hits.items()}

    def save(self) -> None:
        """Write everything that a resumed run needs, atomically."""
        temporary = self.out / f"{STATE}.tmp"
        torch.save(
            {
                "objective": {name: value.detach() for name, value in learned(self.objective).items()},
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "config": self.config.model_dump(),
                "data": self.data,
            },
            temporary,
        )
        temporary.replace(self.out / STATE)

    def _begin(self) -> None:
        """Refuse a folder of other things; drop the lines of a start that saved nothing."""
        own = (LOG, SAMPLES, f"{STATE}.tmp")
        names = sorted(entry.name for entry in self.out.iterdir() if not entry.name.startswith("."))
        if foreign := [name for name in names if name not in own]:
            raise ModelError(
                f"{self.out} holds other things and no training",
                got=", ".join(foreign[:4]),
                expected="a new or empty folder, or a training to continue",
                fix="--out another folder",
            )
        for name in own:
            (self.out / name).unlink(missing_ok=True)

    def _resume(self) -> None:
        try:
            state = torch.load(self.out / STATE, map_location=self.device, weights_only=True)
        except Exception as error:  # a damaged archive raises whatever its damage leads to
            fix = "remove it to start again, or choose another --out"
            raise ModelError(f"{self.out / STATE} cannot be read", got=first_line(error), fix=fix) from error
        before, now = state["config"] | state.get("data", self.data), self.config.model_dump() | self.data
        if changed := [name for name in now if now[name] != before.get(name)]:
            raise ModelError(
                f"{self.out} holds a training run with another recipe",
                got=", ".join(f"{name}={now[name]}" for name in changed),
                expected=", ".join(f"{name}={before.get(name)}" for name in changed),
                fix="repeat the first command's options, or choose another --out",
            )
        self.objective.load_state_dict(state["objective"], strict=False)  # what is frozen or tied is not in it
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.step = state["step"]

    def _optimize(self, stream: Iterator[Batch]) -> dict[str, Tensor]:
        config = self.config
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(config, self.step)
        losses: dict[str, Tensor] = {}
        for _ in range(config.gradient_accumulation_steps):
            batch = next(stream).to(self.device)
            with self._autocast():
                losses = self.objective(batch, self.step)
            (losses["loss"] / config.gradient_accumulation_steps).backward()
        norm = torch.nn.utils.clip_grad_norm_(learned(self.objective).values(), config.max_grad_norm)
        for optimizer in self.optimizers:
            if torch.isfinite(norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return losses

    def _write_samples(self) -> None:
        problems, tokenizer = list(self.validation)[:SHOWN], self.encoder.tokenizer
        with self._autocast():
            written = self.objective.answers(self.encoder(problems).to(self.device), tokenizer.eos_token_id)
        with (self.out / SAMPLES).open("a") as file:
            for problem, ids in zip(problems, written, strict=False):
                line = {"step": self.step, "id": problem.id, "gold": problem.gold, "answer": tokenizer.decode(ids)}
                file.write(json.dumps(line) + "\n")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def _log(self, figures: dict[str, float]) -> None:
        line = {
            "step": self.step,
            "time": round(time.time(), 1),
            "lr": learning_rate(self.config, self.step),
            **figures,
        }
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
