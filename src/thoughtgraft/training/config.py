"""What a training run is: the method, CODI's hyper-parameters under their official names, and a few of our own."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from thoughtgraft.errors import ModelError

Method = Literal["codi", "coconut", "pause", "direct", "cot"]
METHODS: tuple[str, ...] = get_args(Method)


class TrainingConfig(BaseModel):
    """One training recipe; written to disk beside every checkpoint.

    The second block carries the names of the official CODI scripts, `c_thought` and `max_latent_stage` those of
    the official Coconut. `max_steps` counts joint optimizer steps; `teacher_steps` come before them and train
    explicit reasoning alone. Every method sees the same problems in the same order. `lora_r` 0 trains every weight;
    `augment` is the number of variations made of each training problem.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "codi"

    num_latent: int = Field(6, ge=0)
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.1
    warmup_ratio: float = 0.03
    max_grad_norm: float = 2.0
    per_device_train_batch_size: int = Field(64, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    max_steps: int = Field(3000, ge=0)
    bf16: bool = True
    seed: int = 11
    lora_r: int = Field(0, ge=0)
    lora_alpha: float = 32.0
    max_token_num: int | None = None
    augment: int = Field(0, ge=0)
    prj_dim: int | None = None
    prj_dropout: float = 0.0
    distill_loss_factor: float = 20.0
    distill_loss_div_std: bool = True
    ref_loss_factor: float = 1.0
    logging_steps: int = Field(25, ge=1)
    save_steps: int = Field(250, ge=1)
    eval_steps: int = Field(500, ge=1)

    optim: Literal["adamw", "muon"] = "muon"
    teacher_steps: int = Field(600, ge=0)
    teacher_learning_rate: float = 2e-3

    max_latent_stage: int = Field(3, ge=1)
    steps_per_stage: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _fitting_latents(self) -> TrainingConfig:
        if self.method in ("direct", "cot") and self.num_latent:
            raise ModelError(
                f"--method {self.method} feeds no thoughts", got=f"num_latent={self.num_latent}", fix="--num-latent 0"
            )
        if self.lora_r and self.method != "codi":
            raise ModelError(
                f"--method {self.method} trains all weights", got=f"lora_r={self.lora_r}", fix="--lora-r 0, or codi"
            )
        if self.method == "coconut" and self.num_latent % self.max_latent_stage:
            raise ModelError(
                "Coconut's stages add the same number of thoughts each",
                got=f"num_latent={self.num_latent}, max_latent_stage={self.max_latent_stage}",
                expected="a multiple of max_latent_stage",
            )
        return self

    @property
    def c_thought(self) -> int:
        """Thoughts that a stage of Coconut adds."""
        return self.num_latent // self.max_latent_stage

    @property
    def total_steps(self) -> int:
        """All optimizer steps, teacher-only and joint."""
        return self.teacher_steps + self.max_steps
