"""Checkpoints broken on purpose: each a function that writes one into a folder and says how to load it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CHECKPOINT = GOLDEN / "codi-llama" / "checkpoint" / "pytorch_model.bin"
BASE = GOLDEN / "codi-llama" / "base-tiny-llama"
COCONUT = GOLDEN / "coconut-gpt2" / "checkpoint" / "checkpoint_25"
PEFT = "codi.base_model.model."
MODULE = f"{PEFT}model.layers.1.mlp.up_proj"
EMBEDDING = f"{PEFT}model.embed_tokens.weight"
HEAD = f"{PEFT}lm_head.weight"
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Broken:
    """One made-up checkpoint.

    Attributes:
        make: Writes it into an empty folder and returns what `--model` takes.
        loads: Whether it loads all the same.
        family: What the doctor must call it.
        words: What its findings must say.
        options: `base` and `tokenizer`.
    """

    make: Callable[[Path], Path]
    loads: bool
    family: str
    words: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def whole() -> State:
    """The sound state dict that all the others spoil."""
    return {name: value.clone() for name, value in torch.load(CHECKPOINT, weights_only=True).items()}


def save(folder: Path, state: State, *, config: bool = True, safe: bool = False, legacy: bool = False) -> Path:
    """Writes weights, and the base's config and tokenizer beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(BASE / name, folder / name)
    if safe:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    return folder


def changed(change: Callable[[State], None], **options: Any) -> Callable[[Path], Path]:
    """A maker that spoils the sound state dict and saves it."""

    def make(folder: Path) -> Path:
        state = whole()
        change(state)
        return save(folder, state, **options)

    return make


def rename(old: str, new: str) -> Callable[[State], None]:
    """Renames every key that begins with `old`."""

    def change(state: State) -> None:
        for name in [name for name in state if name.startswith(old)]:
            state[new + name.removeprefix(old)] = state.pop(name)

    return change


def both(*changes: Callable[[State], None]) -> Callable[[State], None]:
    """Several changes, in order."""

    def change(state: State) -> None:
        for one in changes:
            one(state)

    return change


def rows(count: int) -> Callable[[State], None]:
    """Gives the embedding and the head another number of rows."""

    def change(state: State) -> None:
        for name in (EMBEDDING, HEAD):
            state[name] = state[name][:1].repeat(count, 1)

    return change


def merged(state: State) -> None:
    """Drops LoRA: what a merged file's names look like."""
    for name in [name for name in state if "lora_" in name]:
        del state[name]
    rename_all = {name: name.replace(".base_layer", "") for name in state}
    for old, new in rename_all.items():
        state[new] = state.pop(old)


def after(make: Callable[[Path], Path], then: Callable[[Path], None]) -> Callable[[Path], Path]:
    """A maker that spoils the folder after writing it."""

    def made(folder: Path) -> Path:
        made_folder = make(folder)
        then(made_folder)
        return made_folder

    return made


def cut(name: str, keep: int) -> Callable[[Path], None]:
    """Cuts a file off."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep]) and None


def put(name: str, content: str) -> Callable[[Path], None]:
    """Writes a small file."""
    return lambda folder: (folder / name).write_text(content) and None


def edit_json(name: str, **values: Any) -> Callable[[Path], None]:
    """Changes entries of a JSON file."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def sharded(folder: Path) -> Path:
    """Three shards, of which the second is gone."""
    state = whole()
    save(folder, {}, config=True)
    (folder / "pytorch_model.bin").unlink()
    names = sorted(state)
    weight_map = {}
    for i in range(3):
        file = f"model-0000{i + 1}-of-00003.safetensors"
        part = {name: state[name] for name in names[i::3]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model-00002-of-00003.safetensors").unlink()
    return folder


def adapter(folder: Path) -> Path:
    """What `save_pretrained` of a PEFT model writes."""
    folder.mkdir(parents=True)
    lora = {k.removeprefix("codi.").replace(".default", ""): v for k, v in whole().items() if "lora_" in k}
    save_file(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    return folder


def adapter_as_weights(folder: Path) -> Path:
    """The same tensors under a weight file's name."""
    made = adapter(folder)
    (made / "adapter_model.safetensors").rename(made / "model.safetensors")
    return made


def dtyped(name: str, dtype: torch.dtype) -> Callable[[State], None]:
    """Gives one tensor another dtype."""

    def change(state: State) -> None:
        state[name] = state[name].to(dtype)

    return change


def simcot(state: State) -> None:
    """Adds SIM-CoT's training-only parts."""
    state |= {
        "decoder.model.norm.weight": torch.ones(3),
        "pj_in.weight": torch.ones(2, 2),
        "pj_out.bias": torch.ones(2),
    }


def drop(*names: str) -> Callable[[State], None]:
    """Removes keys."""
    return lambda state: [state.pop(name) for name in names] and None


def setter(name: str, value: torch.Tensor) -> Callable[[State], None]:
    """Puts a tensor under a name."""
    return lambda state: state.__setitem__(name, value)


def wrapped(folder: Path) -> Path:
    """A training state around the state dict."""
    save(folder, {})
    torch.save({"model": whole(), "step": 3}, folder / "pytorch_model.bin")
    return folder


def larger_tokenizer(folder: Path) -> None:
    """A tokenizer with more ids than the base vocabulary."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] += [{"id": 103 + i, "content": f"<more{i}>", **flags} for i in range(4)]
    path.write_text(json.dumps(content))


SHIFTED = both(rename("prj.1.", "prj.0."), rename("prj.3.", "prj.2."))
PRJ = tuple(f"prj.{name}.{part}" for name in ("1", "3", "ln") for part in ("weight", "bias"))
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5000000000\n"

CASES = {
    "whole": Broken(changed(lambda _: None), True, "CODI"),
    "whole, safetensors": Broken(changed(lambda _: None, safe=True), True, "CODI"),
    "whole, older torch format": Broken(changed(lambda _: None, legacy=True), True, "CODI"),
    "merged": Broken(changed(merged), True, "CODI"),
    "missing key": Broken(changed(drop(f"{PEFT}model.norm.weight")), False, "CODI", ("1 missing", "model.norm.weight")),
    "unexpected key": Broken(changed(setter("extra.weight", torch.ones(2))), False, "CODI", ("1 unexpected: extra",)),
    "LoRA half missing": Broken(
        changed(drop(f"{MODULE}.lora_B.default.weight")), False, "CODI", ("1 LoRA pairs are halves", "up_proj")
    ),
    "LoRA of another rank": Broken(
        changed(setter(f"{MODULE}.lora_A.default.weight", torch.ones(4, 48))), False, "CODI", ("do not fit it",)
    ),
    "shifted prj": Broken(changed(SHIFTED), False, "CODI", ("the keys of prj are shifted", "python -c")),
    "no prj": Broken(changed(drop(*PRJ)), False, "CODI", ("there is no prj",)),
    "special rows missing": Broken(
        changed(rows(103)), False, "CODI", ("103 rows", "the rows of pad, BOT, EOT are missing")
    ),
    "one special row missing": Broken(changed(rows(105)), False, "CODI", ("1 of the rows of pad, BOT, EOT",)),
    "padded rows": Broken(changed(rows(128)), False, "CODI", ("128 rows", "103 + 3", "pad_to_multiple_of")),
    "missing shard": Broken(
        sharded, False, "CODI", ("names 3 shards and 1 are missing: model-00002-of-00003.safetensors",)
    ),
    "truncated safetensors": Broken(
        after(changed(lambda _: None, safe=True), cut("model.safetensors", 200_000)), False, "unknown", ("truncated",)
    ),
    "truncated header": Broken(
        after(changed(lambda _: None, safe=True), cut("model.safetensors", 100)), False, "unknown", ("header claims",)
    ),
    "truncated bin": Broken(
        after(changed(lambda _: None), cut("pytorch_model.bin", -10)), False, "unknown", ("truncated",)
    ),
    "truncated older bin": Broken(
        after(changed(lambda _: None, legacy=True), cut("pytorch_model.bin", -10)), False, "unknown", ("truncated",)
    ),
    "empty weights": Broken(after(changed(lambda _: None), cut("pytorch_model.bin", 0)), False, "unknown", ("empty",)),
    "empty config": Broken(
        after(changed(lambda _: None), put("config.json", "")), False, "CODI", ("empty (0 bytes)", "pass --base")
    ),
    "config of another kind": Broken(
        after(changed(lambda _: None), put("config.json", '{"model_type": "codi"}')), False, "CODI", ("codi", "--base")
    ),
    "config that builds nothing": Broken(
        after(changed(lambda _: None), edit_json("config.json", num_attention_heads=0)), False, "CODI", ("config.json",)
    ),
    "config with too many layers": Broken(
        after(changed(lambda _: None), edit_json("config.json", num_hidden_layers=10**9)), False, "CODI", ("larger",)
    ),
    "tokenizer too large": Broken(
        after(changed(lambda _: None), larger_tokenizer), False, "CODI", ("ids up to 106", "--tokenizer")
    ),
    "tokenizer damaged": Broken(
        after(changed(lambda _: None), put("tokenizer.json", "{")), False, "CODI", ("cannot be read",)
    ),
    "wrong base": Broken(
        changed(lambda _: None),
        False,
        "CODI",
        ("do not match the model", "--base"),
        {"base": str(GOLDEN / "codi-gpt2" / "base-tiny-gpt2")},
    ),
    "PEFT adapter only": Broken(adapter, False, "PEFT adapter only", ("PEFT adapter by itself", "hf download")),
    "PEFT adapter as weights": Broken(adapter_as_weights, False, "PEFT adapter only", ("PEFT adapter by itself",)),
    "int8 weight": Broken(
        changed(dtyped(f"{PEFT}model.norm.weight", torch.int8)), False, "CODI", ("int8", "unquantised")
    ),
    "fp8 weight": Broken(
        changed(dtyped(f"{MODULE}.base_layer.weight", torch.float8_e4m3fn)), False, "CODI", ("float8_e4m3fn",)
    ),
    "fp8 safetensors": Broken(
        changed(dtyped(f"{MODULE}.base_layer.weight", torch.float8_e4m3fn), safe=True),
        False,
        "unknown",
        ("quantised or unknown dtype", "F8_E4M3"),
    ),
    "git-lfs pointer": Broken(
        after(changed(lambda _: None), put("pytorch_model.bin", LFS)), False, "unknown", ("Git LFS", "git lfs pull")
    ),
    "another end of sequence": Broken(
        after(changed(lambda _: None), edit_json("config.json", eos_token_id=7)), True, "CODI", ("end of an answer",)
    ),
    "SIM-CoT decoder": Broken(changed(simcot), True, "SIM-CoT CODI", ("auxiliary decoder", "pj_in")),
    "plain base model": Broken(lambda folder: BASE, False, "plain base model", ("without continuous thoughts",)),
    "two different heads": Broken(
        changed(lambda state: state[HEAD].add_(1)), False, "CODI", ("ties the output matrix", "tie_word_embeddings")
    ),
    "training state": Broken(wrapped, True, "CODI", ("passed over what lies beside", "step")),
    "renamed keys": Broken(
        changed(rename("codi.", "net.")), False, "unknown", ("neither a CODI nor a Coconut checkpoint",)
    ),
    "no such path": Broken(lambda folder: folder / "nowhere", False, "unknown", ("a path that does not exist",)),
}
