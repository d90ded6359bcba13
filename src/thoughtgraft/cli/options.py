"""Options that several verbs share, each explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thoughtgraft.studies import checks

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        callback=checks.model,
        help="An embedded model (tiny-codi; `thoughtgraft zoo`), a hub id such as zen-E/CODI-gpt2, or a directory.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        callback=checks.base,
        help="Directory or hub id with the base model's config and tokenizer, if the checkpoint has none.",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(callback=checks.tokenizer, help="Directory or hub id with the tokenizer, if not the base's."),
]
Device = Annotated[str, typer.Option(callback=checks.device, help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        callback=checks.one_of("dtype", "models.names:DTYPES"),
        help="float32, bfloat16, float16 or float64; default: what suits the checkpoint.",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        callback=checks.one_of("protocol", "models.protocols:PROTOCOLS"),
        help="The rule of inference: official, official-padded, cot-exploration-original or -fixed.",
    ),
]
NumLatents = Annotated[
    int | None, typer.Option(callback=checks.num_latents, help="How many thoughts to feed; default: as trained.")
]
NumThoughts = Annotated[
    int | None,
    typer.Option("--num-latents", callback=checks.num_thoughts, help="How many thoughts to feed; default: as trained."),
]
LoraAlpha = Annotated[
    float | None,
    typer.Option(
        callback=checks.lora_alpha, help="LoRA's alpha; default: what a file beside the weights says, else 32."
    ),
]
PromptSuffix = Annotated[
    str | None,
    typer.Option(
        callback=checks.line_breaks,
        help="Text between question and begin-of-thought, such as '<|eot_id|>', '\\n' or ''; default: as trained.",
    ),
]
Problems = Annotated[
    str,
    typer.Option(
        "--problems",
        "-p",
        callback=checks.problems,
        help="arithmetic[:split], gsm8k:test|train|validation|all, or a .jsonl/.json/.parquet file.",
    ),
]
BatchSize = Annotated[
    str, typer.Option(callback=checks.batch_size, help="Rows at once, or auto. It does not change results.")
]
Seed = Annotated[int, typer.Option(callback=checks.seed, help="Permutes the problems, draws donors and random edits.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        callback=checks.writable_folder,
        help="The run's folder. Running the same command again continues it.",
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(help="The smallest effect that matters, pp; verdicts and a pilot's size rest on it. Default 5."),
]
Alpha = Annotated[
    float | None, typer.Option(help="Share of runs that may say something false; 0.05 makes 95% intervals.")
]
Rule = Annotated[
    int | None,
    typer.Option(help="Judge the records by this rule instead of the run's own: 2, for a run that was begun under 1."),
]
Hosts = Annotated[
    str | None,
    typer.Option(
        callback=checks.hosts,
        help="Problems, instead of the preset's number; auto: as many as --pilot asks for, at most what is left.",
    ),
]
Beside = Annotated[
    list[Path] | None,
    typer.Option(
        callback=checks.homes,
        help="A run, or a folder of runs, to count earlier looks in beside the folder that --out lies in; repeatable.",
    ),
]
Run = Annotated[Path, typer.Argument(callback=checks.run, help="A run's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Certify = Annotated[
    str,
    typer.Option(
        callback=checks.one_of("choice for --certify", checks.CERTIFY),
        help="Check model, protocol and engine first: auto (seconds), full, or off (every page of the report says so).",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many generations, how long and what they could find, and stop.")
]
Tracker = Annotated[
    str, typer.Option(callback=checks.tracker, help="none, or wandb (pip install 'thoughtgraft[wandb]').")
]
Engine = Annotated[
    str,
    typer.Option(
        callback=checks.one_of("engine", "engine.executors:ENGINES"),
        help="local (this process), or ray (pip install 'thoughtgraft[ray]').",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="With --engine ray: a cluster, auto or HOST:PORT. Default: Ray is started on this machine."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With --engine ray: processes that hold the model. Default: what the resources allow."),
]
CpusPerWorker = Annotated[float | None, typer.Option(min=0.1, help="With --engine ray: CPUs of each worker; 1.")]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="With --engine ray: GPUs of each, or a part of one; 1, without GPUs 0.")
]
AnalysisSeed = Annotated[
    int | None, typer.Option(callback=checks.seed, help="Seeds every resampling; default: as the study was, mostly 0.")
]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="The longest answer; default 256.")]
