"""From a base model and a recipe to a finished latent reasoner on disk, with its card."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from thoughtgraft.errors import ModelError
from thoughtgraft.models.assembly import SPECIAL_ROWS
from thoughtgraft.models.checkpoints import write_checkpoint
from thoughtgraft.models.projection import build_projection, pause_vectors
from thoughtgraft.problems.problem import ProblemSet
from thoughtgraft.training.coconut import CoconutObjective
from thoughtgraft.training.codi import CodiObjective
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.controls import CotObjective, PauseObjective
from thoughtgraft.training.cost import forward_flops, parameter_count
from thoughtgraft.training.curves import draw_curves
from thoughtgraft.training.data import ANSWER_PREFIX, COCONUT_ANSWER_PREFIX, Encoder
from thoughtgraft.training.objective import Objective
from thoughtgraft.training.tiny import tiny_lm, tiny_tokenizer
from thoughtgraft.training.trainer import Trainer

TINY = "tiny"
FLOPS_ON = 64
"""Validation problems on which the cost of a step is counted."""
_ABOUT = {
    "codi": "writes its reasoning out, or answers from {k} continuous thoughts that were distilled from it",
    "coconut": "answers from {k} continuous thoughts, which took the place of written steps stage by stage",
    "pause": "control: {k} learned vectors, the same for every problem, are fed where thoughts would be, and nothing "
    "is fed back",
    "direct": "control: answers at once, without any thought; it was also taught to write its reasoning out",
    "cot": "control: writes its reasoning out in words before the answer",
}


@dataclass(frozen=True)
class Base:
    """A language model to be taught: `lm` has V + 3 rows, `config` says V."""

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: PretrainedConfig


def load_base(name: str, seed: int) -> Base:
    """A base to train: `tiny` (random, of the arithmetic vocabulary), or any Hugging Face causal LM.

    Raises:
        ModelError: The base cannot be loaded, or has no end of sequence.
    """
    torch.manual_seed(seed)
    if name == TINY:
        tokenizer: PreTrainedTokenizerBase = tiny_tokenizer()
        lm: PreTrainedModel = tiny_lm(len(tokenizer), seed=seed)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            lm = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the base {name!r} cannot be loaded",
                got=str(error).splitlines()[0],
                expected=f"{TINY!r}, a hub id or a directory",
            ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {name!r} has no end of sequence", fix="set eos_token in tokenizer_config.json"
        )
    config = copy.deepcopy(lm.config)
    lm.resize_token_embeddings(config.vocab_size + SPECIAL_ROWS, mean_resizing=False)
    # Single-token steps dominate; on a CPU the plain kernel is the fastest for them, forward and backward.
    lm.set_attn_implementation("eager" if not torch.cuda.is_available() else "sdpa")
    return Base(lm, tokenizer, config)


def train(
    base: str,
    problems: ProblemSet | None,
    validation: ProblemSet,
    config: TrainingConfig,
    out: Path,
    device: torch.device,
) -> Path:
    """Train a CODI and export it; the same call continues an interrupted training.

    Args:
        base: `tiny`, a hub id or a directory.
        problems: The training set; None draws from the arithmetic generator without end.
        validation: Problems for the curves.
        config: The recipe.
        out: Folder of the training: state, log, curves, and the finished model in `out/model`.
        device: Where to train.

    Returns:
        The finished model's folder, which `load_model` reads.
    """
    start = load_base(base, config.seed)
    encoder = make_encoder(start, config)
    objective = make_objective(start, encoder, config)
    trainer = Trainer(objective, encoder, problems, validation, config, out, device)
    try:
        trainer.run()
    except KeyboardInterrupt:
        trainer.save()
        raise
    draw_curves(out)
    cost = forward_flops(objective, encoder(list(validation)[:FLOPS_ON]), trainer.step)
    data = "arithmetic:train, drawn without end" if problems is None else problems.name
    facts = {"base": base, "data": data, "recipe": config.model_dump(), "steps": trainer.step, "forward_flops": cost}
    return export(objective, start, out / "model", facts)


def make_encoder(base: Base, config: TrainingConfig) -> Encoder:
    """The encoder that a method is trained with."""
    return Encoder(base.tokenizer, COCONUT_ANSWER_PREFIX if config.method == "coconut" else ANSWER_PREFIX)


def make_objective(base: Base, encoder: Encoder, config: TrainingConfig) -> Objective:
    """The method's losses around a base; what belongs to the method alone is made here, from the recipe's seed."""
    torch.manual_seed(config.seed)
    width = int(base.config.hidden_size)
    match config.method:
        case "codi":
            projection = build_projection(width, config.prj_dim or width, dropout=config.prj_dropout)
            return CodiObjective(base.lm, projection, config)
        case "pause":
            return PauseObjective(base.lm, pause_vectors(config.num_latent, width), config)
        case "direct":
            return CodiObjective(base.lm, nn.Identity(), config)
        case "cot":
            return CotObjective(base.lm, nn.Identity(), config)
        case "coconut":
            return CoconutObjective(base.lm, encoder.step_end, config)


def export(objective: Objective, base: Base, folder: Path, card: dict[str, object]) -> Path:
    """Write the model with its tokenizer, in its family's key layout, and its card as JSON.

    The card holds `card` and what follows from the model and its recipe: about, method, seed, parameters and, if
    `steps` are known, problems seen.
    """
    # A model that was trained in bfloat16 arithmetic loses next to nothing in bfloat16 weights, and is half the size.
    config = objective.config
    dtype = torch.bfloat16 if config.bf16 else torch.float32
    feeder = objective.projection if isinstance(objective, CodiObjective) else None
    write_checkpoint(folder, objective.lm, feeder, base.tokenizer, base.config, dtype=dtype, family=config.method)
    (folder / "card.json").write_text(json.dumps(_facts(objective, base, card) | card, indent=1) + "\n")
    return folder


def _facts(objective: Objective, base: Base, card: dict[str, object]) -> dict[str, object]:
    config, size = objective.config, parameter_count(objective)
    shape = f"{base.config.model_type}, {base.config.num_hidden_layers} layers, width {base.config.hidden_size}"
    about = f"{size / 1e6:.1f}M parameters ({shape}); {_ABOUT[config.method].format(k=config.num_latent)}."
    facts: dict[str, object] = {"about": about, "method": config.method, "seed": config.seed, "parameters": size}
    steps = card.get("steps")
    if isinstance(steps, int):
        facts["problems_seen"] = steps * config.per_device_train_batch_size * config.gradient_accumulation_steps
    return facts
