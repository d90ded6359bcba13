"""What mistakes are planted into: a golden network, a trained one, one that counts spaces; and which arms are tried."""

from __future__ import annotations

import functools
from copy import copy
from typing import Any

from tests.engine.tiny import GOLDEN, questions
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.schedule import AFTER
from thoughtgraft.edits.site import Resid
from thoughtgraft.engine.verify.weights import take_fingerprint
from thoughtgraft.models.checkpoint.audit import Fingerprint
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import Problem, ProblemSet

ARMS = (
    Arm("baseline"),
    *(Arm("swap", 1, rule) for rule in AFTER),
    Arm("swap", (0, 5)),
    Arm("swap", range(6)),
    Arm("swap", 2, stratum="operation"),
    *(Arm(method, 2) for method in ("mean", "zero", "noise", "shuffle")),
    Arm("noise", (1, 2, 3)),
    Arm("skip", 1),
    Arm("truncate", 4),
    Arm("zero", 3, site=Resid(2)),
)
"""The arms that certificates try here."""

FAMILY = "codi-gpt2"
PROBLEMS = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions(FAMILY)[:3])))
PLAN = Plan(ARMS)


def load(**options: Any) -> LatentReasoner:
    root = GOLDEN / FAMILY
    model = load_model(root / "checkpoint", base=root / "base-tiny-gpt2", device="cpu", dtype="float64", **options)
    model.max_new_tokens = 8
    return model


@functools.cache
def honest() -> LatentReasoner:
    return load()


@functools.cache
def recorded() -> Fingerprint:
    return take_fingerprint(honest(), PROBLEMS)


@functools.cache
def trained() -> tuple[LatentReasoner, ProblemSet]:
    return load_model("tiny-codi", device="cpu", dtype="float32"), load_problems("arithmetic:test", n=3)


@functools.cache
def spaced() -> LatentReasoner:
    """`tiny-codi` with a tokenizer of single characters, which tells two spaces from one."""
    characters = [chr(i) for i in range(32, 127)]
    words = {word: i for i, word in enumerate(["<unk>", "<eos>", "<bos>", *characters])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    model = copy(trained()[0])
    model.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", bos_token="<bos>"
    )
    model.remember()
    return model
