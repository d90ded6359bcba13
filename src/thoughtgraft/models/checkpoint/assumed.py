"""What the files beside the weights say of a training, and what is assumed where they are silent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.files import read_object
from thoughtgraft.models.checkpoint.format import BOCOT, COCONUT, Family
from thoughtgraft.models.checkpoint.lora import LoraScale

_ADAPTER_CONFIG, _CARD = "adapter_config.json", "card.json"
_FILES = ("adapter.json", _ADAPTER_CONFIG, _CARD, "codi_config.json", "training_args.json", "config.json")
"""Where a training script, PEFT or a card says how a model was trained; the first that says something counts."""
_DEPTH = 2  # objects inside objects that are searched: `recipe`, `training_details`, ...
_MOST_THOUGHTS = 256
_STEP = re.compile(r"checkpoint[-_]\d+")
_PLAIN_NAME = re.compile(r"\^?[\w.]+")
# SIM-CoT's configuration of Coconut: five stages of two (Wei et al. 2025, arXiv 2509.20317, and its published code).
_SIMCOT_THOUGHTS = 10


@dataclass(frozen=True)
class Assumption:
    """Something that changes answers and that no file says.

    Attributes:
        what: What was assumed: `number of thoughts`.
        value: What it was taken to be, as people read it.
        why: Why that.
        option: The command-line option that sets it; the Python argument has the same name.
    """

    what: str
    value: str
    why: str
    option: str

    def __str__(self) -> str:
        return f"{self.what}: {self.value}; {self.why} ({self.option} sets it)"


@dataclass(frozen=True)
class Training:
    """How a checkpoint was trained, as far as its answers hang on it.

    Attributes:
        num_latents: Thoughts that were trained; 0 where the family leaves no choice.
        lora: What LoRA pairs are multiplied by; None where there are none.
        prompt_suffix: The text between a question and begin-of-thought.
        assumptions: What of this no file and no option says.
        notes: What was passed over, in words.
    """

    num_latents: int
    lora: LoraScale | None
    prompt_suffix: str
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """The small JSON files beside the weights that may speak of the training, by name."""

    files: Mapping[str, Mapping[str, object]]

    @classmethod
    def read(cls, directory: Path) -> Beside:
        """Those of a folder and, where it is one step of a trainer's, those of the folder around it."""
        places = [directory, *([directory.parent] if _STEP.fullmatch(directory.name) else [])]
        found: dict[str, Mapping[str, object]] = {}
        for name in _FILES:
            for place in places:
                try:
                    values = read_object(place / name)
                except OSError:
                    continue
                if values is not None:
                    found[name] = values
                    break
        return cls(found)

    def said(self, names: Collection[str], usable: Callable[[object], bool]) -> dict[str, object]:
        """File -> the usable value that it gives under one of these names, at the top or in an object inside."""
        found = {}
        for file, values in self.files.items():
            value = next((v for v in _values(values, names, _DEPTH) if usable(v)), None)
            if value is not None:
                found[file] = value
        return found

    @property
    def own(self) -> bool:
        """Whether a card tells that this project trained it: asked and run as this project does by default."""
        return "recipe" in self.files.get(_CARD, {})

    @property
    def num_latents(self) -> dict[str, object]:
        """File -> thoughts that were trained."""
        return self.said(("num_latent", "num_latents"), _is_count)

    @property
    def lora_alpha(self) -> dict[str, object]:
        """File -> LoRA's alpha."""
        return self.said(("lora_alpha",), _is_positive)

    @property
    def remove_eos(self) -> dict[str, object]:
        """File -> whether the end of sequence was left out before begin-of-thought."""
        return self.said(("remove_eos",), lambda value: isinstance(value, bool))


def _values(values: Mapping[str, object], names: Collection[str], depth: int) -> list[object]:
    inner = [v for v in values.values() if isinstance(v, dict)] if depth else []
    return [values[n] for n in names if n in values] + [x for v in inner for x in _values(v, names, depth - 1)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_THOUGHTS


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def trained_how(
    beside: Beside,
    family: Family,
    *,
    simcot: bool,
    bocot: bool,
    ranks: Collection[int],
    end: str,
    lora_alpha: float | None = None,
    prompt_suffix: str | None = None,
) -> Training:
    """Put together what the user says, what the files say, and what is left to assume.

    Args:
        beside: The files beside the weights.
        family: The checkpoint's family.
        simcot: Whether SIM-CoT made it.
        bocot: Whether its tokenizer names begin- and end-of-thought as `BOCOT` does.
        ranks: Ranks of the LoRA pairs; empty where there are none.
        end: The tokenizer's end of sequence, for the fix.
        lora_alpha: What the user says of LoRA's alpha.
        prompt_suffix: What the user says stands between a question and begin-of-thought.

    Raises:
        CheckpointError: The files say something that cannot be followed, or a number given makes no sense.
    """
    if lora_alpha is not None and lora_alpha != 0 and not _is_positive(lora_alpha):  # 0: as if there were none
        raise CheckpointError("LoRA's alpha must be a number, 0 or more", got=repr(lora_alpha), fix="--lora-alpha 32")
    assumptions: list[Assumption] = []
    notes: list[str] = []
    latents = _latents(beside, family, simcot, assumptions)
    lora = _lora(beside, ranks, lora_alpha, assumptions, notes) if ranks else None
    suffix = _suffix(beside, family, bocot, end, assumptions) if prompt_suffix is None else prompt_suffix
    return Training(latents, lora, suffix, tuple(assumptions), tuple(notes))


def _latents(beside: Beside, family: Family, simcot: bool, assumptions: list[Assumption]) -> int:
    said = beside.num_latents
    if not family.why_latents:
        return 0
    if said:
        _conflict("number of thoughts", said, "--num-latents", assumptions)
        return next(int(str(value)) for value in said.values())
    number, why = family.num_latents, family.why_latents
    if simcot and family is COCONUT:
        number, why = _SIMCOT_THOUGHTS, "SIM-CoT's Coconut has five stages of two, Coconut's own recipe three"
    assumptions.append(
        Assumption(
            "number of thoughts", str(number), f"no file beside the weights says how many; {why}", "--num-latents"
        )
    )
    return number


def _lora(
    beside: Beside, ranks: Collection[int], given: float | None, assumptions: list[Assumption], notes: list[str]
) -> LoraScale:
    said = beside.lora_alpha
    peft = beside.files.get(_ADAPTER_CONFIG, {})
    stabilised = peft.get("use_rslora") is True
    if given is not None:
        other = {file: alpha for file, alpha in said.items() if alpha != given}
        notes += [f"{file} says LoRA alpha {alpha}; {given:g} was given" for file, alpha in other.items()]
        return LoraScale(float(given), stabilised)
    if not said:
        standard = LoraScale(rank_stabilised=stabilised)
        why = "raw checkpoints do not store it; the published ones were trained with 32, and CODI's own default is 16"
        assumptions.append(Assumption("LoRA alpha", str(standard), why, "--lora-alpha"))
        return standard
    _conflict("LoRA alpha", said, "--lora-alpha", assumptions)
    file, alpha = next(iter(said.items()))
    others: tuple[tuple[str, float], ...] = ()
    if file == _ADAPTER_CONFIG:
        _check_ranks(peft, ranks)
        others = _others(peft)
    return LoraScale(float(str(alpha)), stabilised, others)


def _check_ranks(peft: Mapping[str, object], ranks: Collection[int]) -> None:
    """Refuse an adapter_config.json whose ranks are not those of the weights: its alpha is another adapter's too."""
    pattern = peft.get("rank_pattern")
    told = [peft.get("r"), *(pattern.values() if isinstance(pattern, dict) else [])]
    if isinstance(told[0], int) and (strange := sorted(set(ranks) - {r for r in told if isinstance(r, int)})):
        raise CheckpointError(
            f"{_ADAPTER_CONFIG} beside the weights is another adapter's, so its alpha says nothing of them",
            got=f"LoRA pairs of rank {', '.join(map(str, strange))}",
            expected=f"rank {told[0]}, as the file says",
            fix="--lora-alpha with the alpha that these weights were trained with",
        )


def _others(peft: Mapping[str, object]) -> tuple[tuple[str, float], ...]:
    pattern = peft.get("alpha_pattern")
    listed = pattern if isinstance(pattern, dict) else {}
    # PEFT takes these for regular expressions, which a file from elsewhere could make run for ever.
    strange = [name for name, alpha in listed.items() if not _PLAIN_NAME.fullmatch(name) or not _is_positive(alpha)]
    if strange:
        raise CheckpointError(
            f"the alpha_pattern of {_ADAPTER_CONFIG} cannot be followed",
            got=f"{strange[0][:80]!r}: {listed[strange[0]]!r}"[:160],
            expected="the end of a module's name, and a positive number",
            fix="--lora-alpha, if one alpha holds for all modules",
        )
    return tuple((name.removeprefix("^"), float(alpha)) for name, alpha in listed.items())


def _suffix(beside: Beside, family: Family, bocot: bool, end: str, assumptions: list[Assumption]) -> str:
    if not family.why_suffix or beside.own:
        return family.suffix
    said = beside.remove_eos if family is not COCONUT else {}
    if bocot and set(said.values()) == {False}:
        return end
    if bocot and not said:
        raise CheckpointError(
            f"the tokenizer holds {' and '.join(BOCOT)}: a dialect of CODI that is trained with the end of sequence "
            "before begin-of-thought or without it, and no file beside the weights says which",
            got="no remove_eos in any of them",
            expected="the prompt ending that the weights were trained with",
            fix=f"--prompt-suffix '{end}' (the dialect's default, remove_eos false), or --prompt-suffix '' (remove_eos "
            "true)",
        )
    if kept := [file for file, removed in said.items() if removed is False]:
        raise CheckpointError(
            f"{kept[0]} says that the end of sequence stood before begin-of-thought in training, and not what stood "
            "after the thoughts",
            got="remove_eos false",
            expected="remove_eos true, or a prompt ending of your choice",
            fix=f"--prompt-suffix '{end}' asks so and feeds end-of-thought alone after the thoughts (CODI's own code "
            "also feeds the end of sequence there, which is not supported); --prompt-suffix '' asks without it",
        )
    if not said:
        between = f"{family.suffix!r} between" if family.suffix else "nothing between"
        why = f"no file beside the weights says it; {family.why_suffix}"
        assumptions.append(
            Assumption("prompt ending", f"{between} question and begin-of-thought", why, "--prompt-suffix")
        )
    return family.suffix


def _conflict(what: str, said: Mapping[str, object], option: str, assumptions: list[Assumption]) -> None:
    if len(set(said.values())) > 1:
        listed = ", ".join(f"{file} says {value}" for file, value in said.items())
        assumptions.append(Assumption(what, str(next(iter(said.values()))), f"files disagree: {listed}", option))
