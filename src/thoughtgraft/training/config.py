"""What a training run is: the method, CODI's hyper-parameters under their official names, and a few of our own."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from thoughtgraft.errors import ModelError, plainer

LOG = "log.jsonl"

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
    learning_rate: float = Field(1.5e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    max_grad_norm: float = Field(2.0, gt=0)
    per_device_train_batch_size: int = Field(64, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    max_steps: int = Field(3000, ge=0)
    bf16: bool = True
    seed: int = 11
    lora_r: int = Field(0, ge=0)
    lora_alpha: float = Field(32.0, gt=0)
    max_token_num: int | None = Field(None, ge=1)
    augment: int = Field(0, ge=0)
    prj_dim: int | None = Field(None, ge=1)
    prj_dropout: float = 0.0
    distill_loss_factor: float = 20.0
    distill_loss_div_std: bool = True
    ref_loss_factor: float = 1.0
    logging_steps: int = Field(25, ge=1)
    save_steps: int = Field(250, ge=1)
    eval_steps: int = Field(500, ge=1)

    optim: Literal["adamw", "muon"] = "muon"
    teacher_steps: int = Field(600, ge=0)
    teacher_learning_rate: float = Field(2e-3, gt=0)

    max_latent_stage: int = Field(3, ge=1)
    steps_per_stage: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _fitting_latents(self) -> TrainingConfig:
        if self.method in ("direct", "cot") and self.num_latent:
            raise ModelError(
                f"--method {self.method} feeds no thoughts", got=f"num_latent={self.num_latent}", fix="--num-latent 0"
            )
        if self.method not in ("direct", "cot") and not self.num_latent:
            raise ModelError(
                f"--method {self.method} feeds thoughts", got="num_latent=0", fix="--method direct trains without any"
            )
        if not self.total_steps:
            raise ModelError("there is nothing to train", got="0 steps", fix="--max-steps 3000, for example")
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
        if self.method == "coconut" and self.max_steps <= self.max_latent_stage * self.steps_per_stage:
            raise ModelError(
                "Coconut's last stage, the one that the model is used at, would never be trained",
                got=f"{self.max_steps} steps, {self.max_latent_stage} stages of {self.steps_per_stage} before it",
                expected=f"max_steps above {self.max_latent_stage * self.steps_per_stage}",
                fix="more --max-steps, or fewer --steps-per-stage",
            )
        return self

    @classmethod
    def of(cls, **values: object) -> TrainingConfig:
        """A recipe from options.

        Raises:
            ModelError: An option has no usable value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = "--" + "-".join(str(first["loc"][0]).split("_")) if first["loc"] else "an option"
            raise ModelError(
                f"{name} is not usable", got=repr(first["input"]), expected=plainer(first["msg"])
            ) from None

    @property
    def c_thought(self) -> int:
        """Thoughts that a stage of Coconut adds."""
        return self.num_latent // self.max_latent_stage

    @property
    def total_steps(self) -> int:
        """All optimizer steps, teacher-only and joint."""
        return self.teacher_steps + self.max_steps
