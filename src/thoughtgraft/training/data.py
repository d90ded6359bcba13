"""Problems as training batches: a left-padded question, a reasoning tail and an answer tail, right-padded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from thoughtgraft.errors import ModelError, ProblemError
from thoughtgraft.models import codi
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.tasks.sets.arithmetic import generate
from thoughtgraft.tasks.steps import equations

IGNORE = -100
ANSWER_PREFIX = "The answer is:"
COCONUT_ANSWER_PREFIX = "###"
_READ, _UNKNOWN = 200, 0.05
"""Questions that are looked at for unknown words, and the share of those that is too much."""


@dataclass(frozen=True)
class Batch:
    """Token ids of B problems; -100 pads the tails, `question_mask` marks the question's real tokens.

    Shapes: question [B, Q] (left-padded), reasoning [B, T] (steps, answer, end of sequence),
    answer [B, A] (answer, end of sequence). `reasoning_colon` [B] and `answer_colon` [B] are the
    0-based columns of the token before the answer's number.
    """

    question: Tensor
    question_mask: Tensor
    reasoning: Tensor
    answer: Tensor
    reasoning_colon: Tensor
    answer_colon: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def reasoning_text(problem: Problem) -> str:
    """The explicit chain of thought: one `<<a+b=c>>` for each step."""
    if not problem.steps:
        raise ProblemError(f"problem {problem.id!r} has no steps to learn from", fix="train on problems with solutions")
    return " ".join(f"<<{eq}>>" for eq in equations(problem.steps))


class Encoder:
    """Turns problems into batches for one tokenizer.

    Args:
        tokenizer: The base's.
        answer_prefix: What stands before an answer's number.
        prompt_text: What of a question is tokenized, which must be what the trained model will be asked.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer_prefix: str = ANSWER_PREFIX,
        prompt_text: Callable[[str], str] = codi.prompt_text,
    ) -> None:
        self.tokenizer, self.prompt_text = tokenizer, prompt_text
        [self.prefix] = self._ids([answer_prefix])

    def _questions(self, problems: list[Problem]) -> list[list[int]]:
        return self.tokenizer([self.prompt_text(p.question) for p in problems])["input_ids"]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    @property
    def step_end(self) -> int:
        """Id of the token that ends a written step.

        Raises:
            ModelError: The tokenizer cuts it into several.
        """
        [ids] = self._ids([">>"])
        if len(ids) != 1:
            raise ModelError("steps cannot be told apart in this tokenizer", got=f"{len(ids)} tokens for '>>'")
        return int(ids[0])

    def unknown_share(self, problems: list[Problem]) -> float:
        """Share of the questions' tokens that are the unknown token; 0 for tokenizers without one."""
        unknown = self.tokenizer.unk_token_id
        tokens = [token for question in self._questions(problems) for token in question]
        return sum(token == unknown for token in tokens) / len(tokens)

    def lengths(self, problems: list[Problem]) -> list[int]:
        """Tokens of question, steps and answer together, for each problem."""
        questions = self._questions(problems)
        tails = self._ids([f"{reasoning_text(p)} {p.gold}" for p in problems])
        return [len(q) + len(t) + len(self.prefix) + 1 for q, t in zip(questions, tails, strict=True)]

    def __call__(self, problems: list[Problem]) -> Batch:
        """Encode problems.

        Raises:
            ProblemError: A problem has no steps or no gold answer.
        """
        eos = self.tokenizer.eos_token_id
        questions = self._questions(problems)
        answers = [[*self.prefix, *number, eos] for number in self._ids([f" {p.gold}" for p in problems])]
        steps = self._ids([reasoning_text(p) for p in problems])
        reasoning = [s + a for s, a in zip(steps, answers, strict=True)]
        colon = len(self.prefix) - 1
        question, mask = _pad_left(questions)
        return Batch(
            question,
            mask,
            _pad_right(reasoning),
            _pad_right(answers),
            torch.tensor([len(s) + colon for s in steps]),
            torch.full((len(problems),), colon),
        )


def _pad_left(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return ids, mask


def _pad_right(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([r + [IGNORE] * (width - len(r)) for r in rows])


def short_enough(problems: ProblemSet, encoder: Encoder, max_token_num: int | None) -> ProblemSet:
    """The problems of which question, steps and answer have at most `max_token_num` tokens together; None: all.

    Raises:
        ProblemError: None is left.
    """
    if max_token_num is None:
        return problems
    sizes = encoder.lengths(list(problems))
    kept = tuple(problem for problem, size in zip(problems, sizes, strict=True) if size <= max_token_num)
    if not kept:
        raise ProblemError(
            f"every problem of {problems.name} is too long", got=f"{min(sizes)} tokens", expected=f"{max_token_num}"
        )
    return ProblemSet(kept, problems.name)


def refuse_unreadable(problems: ProblemSet, encoder: Encoder, base: str) -> None:
    """Refuse problems of whose words a vocabulary lacks many.

    Raises:
        ModelError: More than 5% of the tokens of the first questions are unknown.
    """
    share = encoder.unknown_share(list(problems[:_READ]))
    if share > _UNKNOWN:
        raise ModelError(
            f"the vocabulary of {base} does not hold the words of {problems.name}",
            got=f"{share:.0%} of the tokens unknown",
            expected=f"at most {_UNKNOWN:.0%}",
            fix="--base smollm2, or another base with a subword tokenizer",
        )


def problem_stream(problems: ProblemSet | None, seed: int) -> Iterator[Problem]:
    """Endless problems: the generator's train stream, or seeded epochs over a given set."""
    if problems is None:
        yield from generate("train", seed)
        return
    epoch = 0
    while True:
        order = list(range(len(problems)))
        random.Random(f"{seed}-{epoch}").shuffle(order)
        yield from (problems[i] for i in order)
        epoch += 1


def batches(
    stream: Iterator[Problem], encoder: Encoder, batch_size: int, *, skip: int = 0, pool: int = 2
) -> Iterator[Batch]:
    """Batches of similar length: `pool` batches are drawn, sorted by question length, cut and reshuffled.

    Padding is most of a short question's cost; a pool keeps batches mixed enough to train on.

    Args:
        stream: Endless problems.
        encoder: Turns problems into tensors.
        batch_size: Problems in a batch.
        skip: Batches to pass over unencoded, so that a resumed run sees the data it would have seen.
        pool: Batches drawn together.
    """
    count = 0
    shuffle = random.Random(0)
    while True:
        drawn = [next(stream) for _ in range(batch_size * pool)]
        drawn.sort(key=lambda p: len(p.question))
        cuts = [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
        shuffle.shuffle(cuts)
        for cut in cuts:
            count += 1
            if count > skip:
                yield encoder(cut)
