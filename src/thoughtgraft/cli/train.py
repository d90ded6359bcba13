"""`thoughtgraft train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.cli import options
from thoughtgraft.errors import ModelError
from thoughtgraft.signals import current
from thoughtgraft.studies import checks


def train(
    out: options.Out,
    base: Annotated[
        str,
        typer.Option(
            callback=checks.training_base,
            help="tiny (made from the arithmetic vocabulary), smollm2, a hub id or a directory.",
        ),
    ] = "tiny",
    problems: options.Problems = "arithmetic:train",
    validation: Annotated[
        str, typer.Option(callback=checks.problems, help="Problems for the curves.")
    ] = "arithmetic:validation",
    held_out: Annotated[
        str | None,
        typer.Option(
            callback=checks.problems,
            help="Problems that nothing may be learnt from, nor from their like; default for gsm8k: the test split.",
        ),
    ] = None,
    augment: Annotated[
        int, typer.Option(min=0, help="Variations of each training problem, with other numbers, where its text allows.")
    ] = 0,
    device: options.Device = "auto",
    method: Annotated[
        str,
        typer.Option(
            callback=checks.one_of("method", "training.config:METHODS"),
            help="codi; coconut (steps are replaced by thoughts, stage by stage); pause (learned vectors in the place "
            "of thoughts); direct (no thoughts); cot (reasoning written out).",
        ),
    ] = "codi",
    num_latent: Annotated[
        int | None, typer.Option(min=0, help="Thoughts to feed; default 6, and 0 for direct and cot.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=0, help="Optimizer steps of the method itself.")] = 3000,
    learning_rate: Annotated[float, typer.Option(help="Their peak learning rate; cosine.")] = 1.5e-3,
    teacher_steps: Annotated[
        int | None,
        typer.Option(min=0, help="Steps with explicit reasoning alone, before those; default: a fifth of them."),
    ] = None,
    teacher_learning_rate: Annotated[float, typer.Option(help="Their learning rate.")] = 2e-3,
    per_device_train_batch_size: Annotated[int, typer.Option(min=1, help="Problems at once.")] = 64,
    gradient_accumulation_steps: Annotated[int, typer.Option(min=1, help="Such batches in an optimizer step.")] = 1,
    optim: Annotated[str, typer.Option(help="muon (inner matrices by Muon, the rest by AdamW) or adamw.")] = "muon",
    warmup_ratio: Annotated[float, typer.Option(help="Share of the steps over which the rate rises.")] = 0.03,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay of the matrices.")] = 0.1,
    max_grad_norm: Annotated[float, typer.Option(help="Longer gradients are cut to this norm.")] = 2.0,
    lora_r: Annotated[int, typer.Option(min=0, help="LoRA's rank: the base stays frozen. 0 trains every weight.")] = 0,
    lora_alpha: Annotated[float, typer.Option(help="LoRA's alpha.")] = 32.0,
    max_token_num: Annotated[
        int | None, typer.Option(min=1, help="Leave out longer problems (question, steps and answer).")
    ] = None,
    prj_dim: Annotated[int | None, typer.Option(help="Width inside prj; default: the model's.")] = None,
    max_latent_stage: Annotated[int, typer.Option(min=1, help="Coconut: stages.")] = 3,
    steps_per_stage: Annotated[int, typer.Option(min=1, help="Coconut: optimizer steps of each stage.")] = 500,
    distill_loss_factor: Annotated[float, typer.Option(help="CODI: weight of the distillation loss.")] = 20.0,
    ref_loss_factor: Annotated[float, typer.Option(help="CODI: weight of the written steps' loss.")] = 1.0,
    bf16: Annotated[bool, typer.Option(help="bfloat16 autocast.")] = True,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between two saved states.")] = 250,
    eval_steps: Annotated[int, typer.Option(min=1, help="Steps between two points of the validation curves.")] = 500,
    logging_steps: Annotated[int, typer.Option(min=1, help="Steps between two lines of the log.")] = 25,
    seed: Annotated[int, typer.Option(callback=checks.seed, help="Weights and data order.")] = 11,
) -> None:
    """Teach a language model to think in continuous thoughts, or train a control that does not; all weights trained.

    With codi, one model learns to write its steps out and to answer from six thoughts, which are distilled from the
    written steps. Every method sees the same problems in the same order for the same number of steps, so that models
    of one seed can be compared. Interrupt it and run the same command again to continue.
    Option names are those of the official CODI and Coconut scripts.
    """
    from thoughtgraft.tasks.load import load_problems
    from thoughtgraft.training.config import TrainingConfig

    config = TrainingConfig.of(
        method=method,
        num_latent=num_latent if num_latent is not None else 0 if method in ("direct", "cot") else 6,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_ratio=warmup_ratio,
        max_grad_norm=max_grad_norm,
        per_device_train_batch_size=per_device_train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        optim=optim,
        max_steps=max_steps,
        bf16=bf16,
        seed=seed,
        lora_r=lora_r,
        lora_alpha=lora_alpha,
        max_token_num=max_token_num,
        augment=augment,
        prj_dim=prj_dim,
        distill_loss_factor=distill_loss_factor,
        ref_loss_factor=ref_loss_factor,
        logging_steps=logging_steps,
        save_steps=save_steps,
        eval_steps=eval_steps,
        teacher_steps=max_steps // 5 if teacher_steps is None else teacher_steps,
        teacher_learning_rate=teacher_learning_rate,
        max_latent_stage=max_latent_stage,
        steps_per_stage=steps_per_stage,
    )
    endless = problems == "arithmetic:train"
    # The arithmetic generator has no end of training problems; other sets are gone through in epochs.
    if endless:
        _refuse({"--augment": augment, "--held-out": held_out, "--max-token-num": max_token_num})
    else:
        held_out = held_out or ("gsm8k:test" if problems.startswith("gsm8k:") else None)
    curves = load_problems(validation)
    learned = None if endless else load_problems(problems)
    apart = load_problems(held_out) if held_out else None

    # What needs torch comes after everything that can be refused without it.
    from thoughtgraft.models.load import find_device
    from thoughtgraft.training.recipe import prepare
    from thoughtgraft.training.recipe import train as run

    chosen = None if learned is None else prepare(learned, curves, apart, config)
    if chosen is not None:
        typer.echo(str(chosen))
    interruption = current()
    with interruption.held():
        model = run(base, chosen, curves, config, Path(out), find_device(device), interruption.asked)
    typer.echo(f"The model: {model.resolve()}   (thoughtgraft evaluate --model {model})")


def _refuse(options: Mapping[str, object]) -> None:
    if given := [f"{name} {value}" for name, value in options.items() if value]:
        raise ModelError(
            "problems that are drawn without end cannot be cut or varied",
            got=f"{' '.join(given)} with --problems arithmetic:train",
            fix="leave that out, or train on a file or gsm8k:train",
        )


def export(
    adapter: Annotated[
        Path, typer.Argument(callback=checks.adapter, help="An adapter's folder, as `train --lora-r` writes it.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", callback=checks.new_folder, help="Where to write; made if it does not exist."),
    ],
    base: Annotated[
        str | None,
        typer.Option(callback=checks.training_base, help="Where the base is, if not where the adapter says."),
    ] = None,
) -> None:
    """Write an adapter and its base as one file in CODI's official raw layout, for other people's code.

    The file holds the full base weights and the unmerged LoRA pairs under the official names, as the published
    CODI checkpoints do; the base's config and tokenizer lie beside it. An alpha other than the official 32 is
    multiplied into the pairs.
    """
    from thoughtgraft.models.checkpoint.adapter import write_official

    folder = write_official(adapter, out, base)
    typer.echo(f"The model: {folder.resolve()}   (thoughtgraft evaluate --model {folder})")
