"""The golden models and a random Coconut as test models, and the oracle's answer to any arm, from its own thoughts."""

from __future__ import annotations

import atexit
import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.context import EditContext
from thoughtgraft.engine.reference import ReferenceRun, reference_run
from thoughtgraft.engine.rollout import RolloutResult, rollout
from thoughtgraft.engine.rows import Row, Source
from thoughtgraft.models.checkpoint.read import write_checkpoint
from thoughtgraft.models.coconut import CoconutReasoner
from thoughtgraft.models.codi import CodiReasoner
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner, Prompt
from thoughtgraft.models.thinker import Decoding

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FAMILIES = ("codi-gpt2", "codi-llama")
COCONUTS = ("coconut-gpt2", "coconut-llama")
"""The first is golden; the second is random, and has no official answers."""
EVERY_MODEL = FAMILIES + COCONUTS
EARLY_ENDS = {"codi-gpt2": (1, 41), "codi-llama": (1, 88, 67)}
"""Tokens that both nets write often: as ends of sequence they make answers of many lengths."""
Tiny = CodiReasoner | CoconutReasoner


@functools.cache
def expected(family: str) -> dict[str, Any]:
    """What the official code did."""
    found: dict[str, Any] = json.loads((GOLDEN / family / "expected.json").read_text())
    return found


def questions(family: str) -> list[str]:
    return list(expected("coconut-gpt2" if family in COCONUTS else family)["questions"])


@functools.cache
def loaded(family: str, dtype: str) -> Tiny:
    """The checkpoint through the public loader; in float64 without the library's float32 islands."""
    if family == "coconut-llama":
        model = load_model(random_coconut(_kept_folder() / dtype), device="cpu", dtype=dtype)
    else:
        root = GOLDEN / family
        model = load_model(root / "checkpoint", base=next(root.glob("base-*")), device="cpu", dtype=dtype)
    assert isinstance(model, Tiny)
    if dtype == "float64":
        lift_norms(model)
    return model


@functools.cache
def _kept_folder() -> Path:
    """A folder for this process: the certificate reads a model's files again."""
    folder = tempfile.TemporaryDirectory(prefix="thoughtgraft-tests-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def random_coconut(folder: Path) -> Path:
    """A Llama-shaped Coconut with the golden Coconut's tokenizer, written by the public writer."""
    golden = load_model(GOLDEN / "coconut-gpt2" / "checkpoint", base=GOLDEN / "coconut-gpt2" / "base-tiny-gpt2")
    shape = GOLDEN / "codi-llama" / "base-tiny-llama"
    # Its own range, .35, makes a net that without a projection's LayerNorm amplifies rounding from thought to thought.
    config = AutoConfig.from_pretrained(shape, vocab_size=107, initializer_range=0.15)
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config)
    config.vocab_size = 104
    return write_checkpoint(folder, lm, None, golden.tokenizer, config, family="coconut")


def lift_norms(model: LatentReasoner) -> None:
    """Let RMSNorm compute in the dtype of its input; the library computes it in float32 whatever the model's dtype."""

    def forward(self: Any, states: Tensor) -> Tensor:
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        result: Tensor = self.weight * (states * scale)
        return result

    for module in model.lm.modules():
        kind = type(module)
        if kind.__name__.endswith("RMSNorm"):
            module.__class__ = type(f"Float64{kind.__name__}", (kind,), {"forward": forward})
    model.remember()


class _EarlyEnds(LatentReasoner):
    ends: tuple[int, ...] | None = None

    @property
    def decoding(self) -> Decoding:
        return super().decoding if self.ends is None else replace(super().decoding, ends=self.ends)


def tiny(
    family: str,
    dtype: str = "float64",
    *,
    protocol: str = "official",
    num_latents: int = 6,
    max_new_tokens: int = 12,
    ends: tuple[int, ...] | None = None,
    mixins: tuple[type[LatentReasoner], ...] = (),
) -> Any:
    """A test model; all of one family and dtype share their weights.

    `ends` replaces the tokens that end an answer, `mixins` override what the adapter does.
    """
    whole = loaded(family, dtype)
    model = type("TinyReasoner", (_EarlyEnds, *mixins, type(whole)), {})(
        whole.checkpoint, protocol=protocol, num_latents=num_latents, max_new_tokens=max_new_tokens
    )
    model.ends = ends
    return model


def own_op(live: Tensor, at: EditContext) -> Tensor:
    """A user's edit that looks at everything an edit may look at, also at a residual stream."""
    donor, mean, first = at.donor(kind="fed"), at.mean(kind="fed"), at.host(slot=0, kind="fed")
    return 0.5 * live.roll(1, -1) + 0.3 * donor - 0.2 * mean + 0.1 * first


@dataclass
class Oracle:
    """Reference runs of one model over some prompts, each computed once."""

    model: LatentReasoner
    prompts: Sequence[Prompt]
    _clean: dict[int, ReferenceRun] = field(default_factory=dict)
    _cells: dict[Any, ReferenceRun] = field(default_factory=dict)

    def clean(self, host: int) -> ReferenceRun:
        if host not in self._clean:
            self._clean[host] = reference_run(self.model, self.prompts[host])
        return self._clean[host]

    def fed(self) -> Tensor:
        """The clean `fed` of every prompt [N, K, d]."""
        return torch.stack([self.clean(i).fed for i in range(len(self.prompts))])

    def run(self, arm: Arm, host: int, donor: int | None = None, key: str = "") -> ReferenceRun:
        """One cell, with a context made from the oracle's own thoughts, for this cell alone."""
        name = (arm.change.name, arm.site, arm.after, host, donor, key)
        if name not in self._cells:

            def edit(slot: int, live: Tensor) -> Tensor:
                others = [self.clean(i).fed for i in range(len(self.prompts)) if i != host]
                at = EditContext.of(
                    slot,
                    (key,),
                    self.clean(host).fed[None],
                    self.clean(host if donor is None else donor).fed[None],
                    torch.stack(others).mean(0)[None],
                    "fed" if arm.layer is None else "resid",
                )
                assert arm.edit is not None
                return arm.edit(live[None], at)[0]

            self._cells[name] = reference_run(
                self.model,
                self.prompts[host],
                schedule(arm, self.model.num_latents, self.model.loop.step_of),
                edit=edit,
                layer=arm.layer,
                clean=self.clean(host),
            )
        return self._cells[name]


@dataclass(frozen=True)
class Case:
    """An arm on a host: what a plan's cell is to the engine."""

    arm: Arm
    host: int
    donor: int | None = None
    key: str = ""

    def row(
        self, num_latents: int, problem: int | None = None, step_of: Callable[[int], int] = lambda slot: slot
    ) -> Row:
        """The engine's row; `problem` is the host's place in the batch."""
        return Row(
            problem=self.host if problem is None else problem,
            actions=schedule(self.arm, num_latents, step_of),
            edit=self.arm.edit,
            host=self.host,
            donor=self.donor,
            key=self.key,
            layer=self.arm.layer,
        )


def run_cases(
    model: LatentReasoner, prompts: Sequence[Prompt], cases: Sequence[Case], source: Source, **options: Any
) -> RolloutResult:
    """The batched engine over cases whose hosts index `prompts`."""
    rows = [case.row(model.num_latents, step_of=model.loop.step_of) for case in cases]
    return rollout(model, prompts, rows, source, keep_logits=True, **options)


def difference(a: Tensor, b: Any) -> float:
    """The largest absolute difference, taken in float64."""
    gap = a.double() - torch.as_tensor(b, dtype=torch.float64)
    return float(gap.abs().max()) if gap.numel() else 0.0
