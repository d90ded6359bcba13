"""What a training run is: CODI's hyper-parameters under their official names, and this trainer's own few."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """One training recipe; written to disk beside every checkpoint.

    The first block carries the names of the official CODI scripts. `max_steps` counts joint
    optimizer steps; `teacher_steps` come before them and train explicit reasoning alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_latent: int = Field(6, ge=0)
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.1
    warmup_ratio: float = 0.03
    max_grad_norm: float = 2.0
    per_device_train_batch_size: int = Field(128, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    max_steps: int = Field(4500, ge=0)
    bf16: bool = True
    seed: int = 11
    prj_dim: int | None = None
    prj_dropout: float = 0.0
    distill_loss_factor: float = 20.0
    distill_loss_div_std: bool = True
    ref_loss_factor: float = 1.0
    logging_steps: int = Field(25, ge=1)
    save_steps: int = Field(250, ge=1)
    eval_steps: int = Field(500, ge=1)

    optim: Literal["adamw", "muon"] = "muon"
    teacher_steps: int = Field(800, ge=0)
    teacher_learning_rate: float = 2e-3

    @property
    def total_steps(self) -> int:
        """All optimizer steps, teacher-only and joint."""
        return self.teacher_steps + self.max_steps
