"""Recipes: the settings that made the embedded models, and the tiny base."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from thoughtgraft.errors import ModelError
from thoughtgraft.models import coconut, codi
from thoughtgraft.models.checkpoint.adapter import PREFIX, ROWS, Description, write_adapter
from thoughtgraft.models.checkpoint.assembly import build_projection, pause_vectors
from thoughtgraft.models.checkpoint.format import SPECIAL_ROWS
from thoughtgraft.models.checkpoint.read import write_checkpoint
from thoughtgraft.models.checkpoint.twin import check_base
from thoughtgraft.models.lm import LanguageModel, load_language_model
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.tasks.sets.arithmetic import vocabulary
from thoughtgraft.training.augment.training_set import TrainingSet, training_set, usable
from thoughtgraft.training.card import CARD, draw_curves, write_card
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.data import ANSWER_PREFIX, COCONUT_ANSWER_PREFIX, Encoder, refuse_unreadable, short_enough
from thoughtgraft.training.lora import add_lora, learned
from thoughtgraft.training.objectives import (
    CoconutObjective,
    CodiObjective,
    CotObjective,
    Objective,
    PauseObjective,
    forward_flops,
    parameter_count,
)
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


def load_base(name: str, config: TrainingConfig) -> Base:
    """A base to train: `tiny` (random, of the arithmetic vocabulary), `smollm2`, or any Hugging Face causal LM.

    With `lora_r` the base's own weights are frozen, in bfloat16 if the recipe says so.

    Raises:
        ModelError: The base cannot be loaded, has no end of sequence, cannot be trained with LoRA, or would be computed
            here otherwise than by its own library.
    """
    torch.manual_seed(config.seed)
    dtype = torch.bfloat16 if config.lora_r and config.bf16 else torch.float32
    if name == TINY:
        if config.lora_r:
            raise ModelError(
                "LoRA adapts a trained model, and tiny is made of random weights",
                got=f"--base {TINY} --lora-r {config.lora_r}",
                fix="--base smollm2, a hub id or a directory; or --lora-r 0",
            )
        tokenizer = tiny_tokenizer()
        lm = tiny_lm(len(tokenizer), seed=config.seed)
        found = LanguageModel(name, lm, tokenizer, lm.config)
    else:
        found = load_language_model(name, dtype=dtype)
    if found.tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {name!r} has no end of sequence", fix="set eos_token in tokenizer_config.json"
        )
    check_base(found.config, found.name)
    base_config = copy.deepcopy(found.config)  # the model's own grows with its embedding
    if config.lora_r:
        add_lora(found.lm, rank=config.lora_r, alpha=config.lora_alpha)
    else:
        found.lm.resize_token_embeddings(found.config.vocab_size + SPECIAL_ROWS, mean_resizing=False)
    # Single-token steps dominate; on a CPU the plain kernel is the fastest for them, forward and backward.
    found.lm.set_attn_implementation("eager" if not torch.cuda.is_available() else "sdpa")
    return Base(found.lm, found.tokenizer, base_config)


def prepare(
    problems: ProblemSet, validation: ProblemSet, held_out: ProblemSet | None, config: TrainingConfig
) -> TrainingSet:
    """What of a problem set is trained on, with its variations.

    Args:
        problems: The source.
        validation: Problems for the curves; they are left out.
        held_out: Problems that the model will be measured on; they and their near-duplicates are left out.
        config: The recipe: `augment` and `seed`.

    Raises:
        ProblemError: Nothing is left.
    """
    curves = {problem.content_hash for problem in validation}
    kept = tuple(problem for problem in problems if problem.content_hash not in curves)
    return training_set(
        ProblemSet(kept, problems.name), held_out=held_out or (), copies=config.augment, seed=config.seed
    )


def train(
    base: str,
    problems: TrainingSet | None,
    validation: ProblemSet,
    config: TrainingConfig,
    out: Path,
    device: torch.device,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Train a model and export it; the same call continues an interrupted training, and leaves a finished one as it is.

    Args:
        base: `tiny`, `smollm2`, a hub id or a directory.
        problems: The training set, from `prepare`; None draws from the arithmetic generator without end.
        validation: Problems for the curves.
        config: The recipe.
        out: Folder of the training: state, log, curves, and the finished model in `out/model`.
        device: Where to train.
        stop: Asked between two steps: whether to save and end here.

    Returns:
        The finished model's folder, which `load_model` reads.

    Raises:
        ModelError: The base cannot be trained, or `out` holds another training.
        KeyboardInterrupt: `stop` said so.
    """
    start = load_base(base, config)
    encoder = make_encoder(start, config)
    chosen = None if problems is None else short_enough(problems.problems, encoder, config.max_token_num)
    validation = short_enough(usable(validation), encoder, config.max_token_num)
    for asked in (chosen, validation):
        if asked is not None:
            refuse_unreadable(asked, encoder, base)
    objective = make_objective(start, encoder, config)
    trainer = Trainer(objective, encoder, chosen, validation, config, out, device, base)
    folder = out / "model"
    if trainer.step == config.total_steps and (folder / CARD).is_file():
        return folder  # its card may hold what was measured since
    trainer.run(stop)
    draw_curves(out)
    cost = forward_flops(objective, encoder(list(validation)[:FLOPS_ON]), trainer.step)
    data = "arithmetic:train, drawn without end" if chosen is None else chosen.name
    facts: dict[str, object] = {"base": base, "data": data, "recipe": config.model_dump(), "steps": trainer.step}
    facts["forward_flops"] = cost
    if problems is not None and chosen is not None:
        facts |= {
            "data_hash": chosen.content_hash,
            "data_n": len(chosen),
            "data_made": "; ".join(line.strip() for line in str(problems).splitlines()),
        }
    if config.lora_r:
        return export_adapter(objective, start, base, folder, facts)
    return export(objective, start, folder, facts)


def make_encoder(base: Base, config: TrainingConfig) -> Encoder:
    """The encoder that a method is trained with."""
    if config.method == "coconut":
        return Encoder(base.tokenizer, COCONUT_ANSWER_PREFIX, coconut.prompt_text)
    return Encoder(base.tokenizer, ANSWER_PREFIX, codi.prompt_text)


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
    write_card(folder, _facts(objective, base, card) | card)
    return folder


def export_adapter(objective: Objective, start: Base, base: str, folder: Path, card: dict[str, object]) -> Path:
    """Write what LoRA training learned, in bfloat16, with the base's name and hash and the card.

    Args:
        objective: A trained CODI.
        start: The base that was trained.
        base: The name that it loads by.
        folder: Where to.
        card: Facts for the card.
    """
    names = {"lm.model.embed_tokens.rows": ROWS, "lm.transformer.wte.rows": ROWS}
    tensors = {}
    for name, value in learned(objective).items():
        key = names.get(name) or (PREFIX + name.removeprefix("lm.") if "lora_" in name else name)
        tensors[key.replace("projection.", "prj.")] = value.to(torch.bfloat16)
    original = load_language_model(base)
    found = str(Path(base).resolve()) if Path(base).is_dir() else base  # from any working directory
    description = Description(base=found, base_hash=original.weight_hash, lora_alpha=objective.config.lora_alpha)
    write_adapter(folder, tensors, description)
    write_card(folder, _facts(objective, start, card) | {"base_hash": description.base_hash} | card)
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


_SYMBOLS = ["<unk>", "<eos>", "<bos>", "<<", ">>", "+", "-", "*", "/", "=", ":", ","]
_ANSWER_WORDS = ["the", "answer", "is", "###"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, every known number one token, `<<` and `>>` one token each."""
    words = dict.fromkeys([*_SYMBOLS, *vocabulary(), *_ANSWER_WORDS])
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"<<|>>|###|[0-9]+|[a-z]+|[^\sa-z0-9]"), behavior="isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    joined = [(f" {s}", s) for s in ".?,:+-*/=" + ">"] + [(f"{s} ", s) for s in "+-*/=<"]
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]
        + [decoders.Replace(old, new) for old, new in joined]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", bos_token="<bos>", padding_side="left"
    )


def tiny_lm(vocab_size: int, *, seed: int, hidden_size: int = 128, num_layers: int = 4) -> LlamaForCausalLM:
    """A randomly initialised Llama of about 0.9M parameters with tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=512,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=None,
        tie_word_embeddings=True,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config)
