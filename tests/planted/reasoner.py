"""A reasoner whose weights were set by hand, so that what each thought does is known and not estimated.

The question "say 7 c12" names a number and a case that means nothing. Every thought reads the number from the question
through attention and carries one number as its payload; the end of thought reads the payload of one slot, `reads`,
and the model says it. Two designs:

- `own`: each thought carries a number of its own making. Only slot `reads` carries the answer; the slots in `leaks`
  nudge the logits without ever changing the answer; nothing reads the others.
- `relay`: the first thought carries the answer and each later one copies the payload of the one before, so that
  every slot matters, all but the last only through what follows it.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.problem import Problem, ProblemSet, Step

NUMBERS = 24
CASES = 200
WIDTH, HEAD = 128, 32
# Parts of the residual stream: the number asked for, the number read, a hint, a thought's payload, the next slot.
ASKED, READ, HINT, PAYLOAD, NEXT = (slice(a, b) for a, b in ((0, 24), (24, 48), (48, 72), (72, 96), (96, 104)))
ANY, SINK, NUMBER, THINKING, ENDING = range(104, 109)
_WORDS = ["<unk>", "<eos>", "<bos>", "say"]
_FIRST_NUMBER = len(_WORDS)


def _tokenizer() -> PreTrainedTokenizerFast:
    words = [*_WORDS, *(str(n) for n in range(1, NUMBERS + 1)), *(f"c{i}" for i in range(CASES))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", bos_token="<bos>")


def _empty_lm(vocab: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=WIDTH,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HEAD,
        max_position_embeddings=64,
        # The slowest rotations stand still at this base, so that those dimensions match by content alone.
        rope_parameters={"rope_type": "default", "rope_theta": 1e30},
        tie_word_embeddings=False,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=None,
    )
    lm = LlamaForCausalLM(config).eval()
    for parameter in lm.parameters():
        parameter.requires_grad_(False).zero_()
    for module in lm.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.fill_(1.0)
    return lm


class Planted(LatentReasoner):
    """The reasoner of this module's docstring; `reads` and `leaks` are 0-based slots."""

    family = "planted"

    def __init__(self, design: str = "own", *, reads: int = 2, leaks: tuple[int, ...] = (0, 1), num_latents: int = 5):
        tokenizer = _tokenizer()
        self.design, self.reads = design, reads
        self._pad = len(tokenizer)
        lm = _empty_lm(len(tokenizer) + 3)
        super().__init__(
            lm,
            tokenizer,
            name="planted",
            weight_hash=f"planted-{design}-{reads}-{leaks}",
            num_latents=num_latents,
            trained_latents=num_latents,
            max_new_tokens=4,
        )
        self._write_embeddings()
        attention = lm.model.layers[0].self_attn
        match, sink = HEAD // 2 - 1, HEAD // 2 - 2  # of the first half: the two slowest rotations
        reads_from = ([NUMBER], [NEXT.start + reads + 1], [NEXT.start + slot + 1 for slot in leaks])
        for head, (asks, keys) in enumerate(zip((THINKING, ENDING, ENDING), reads_from, strict=True)):
            row = head * HEAD
            attention.q_proj.weight[row + match, asks] = 20.0
            attention.k_proj.weight[row + match, keys] = 20.0
            # Whoever finds no match looks at the first token, which has nothing to say.
            attention.q_proj.weight[row + sink, ANY] = 6.0
            attention.k_proj.weight[row + sink, SINK] = 6.0
            taken, given = (ASKED, PAYLOAD, PAYLOAD)[head], (READ, READ, HINT)[head]
            attention.v_proj.weight[row : row + NUMBERS, taken] = torch.eye(NUMBERS)
            attention.o_proj.weight[given, row : row + NUMBERS] = torch.eye(NUMBERS)
        numbers = slice(_FIRST_NUMBER, _FIRST_NUMBER + NUMBERS)
        lm.lm_head.weight[numbers, READ] = 0.3 * torch.eye(NUMBERS)
        lm.lm_head.weight[numbers, HINT] = 0.06 * torch.eye(NUMBERS)
        lm.lm_head.weight[1, NUMBER] = 3.0  # after a number, stop

    def _write_embeddings(self) -> None:
        table = self.lm.get_input_embeddings().weight
        table[:, ANY] = 1.0
        table[2, SINK] = 1.0
        for n in range(NUMBERS):
            table[_FIRST_NUMBER + n, [ASKED.start + n, NUMBER]] = 1.0
        table[self._pad + 1, [THINKING, NEXT.start]] = 1.0
        table[self._pad + 2, ENDING] = 1.0

    def question_ids(self, question: str) -> list[int]:
        return [2, *self.tokenizer(question, add_special_tokens=False)["input_ids"], self._pad + 1]

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        slot = hidden[..., NEXT].argmax(-1).clamp_max(NEXT.stop - NEXT.start - 2)
        asked, before = hidden[..., READ].argmax(-1), hidden[..., PAYLOAD].argmax(-1)
        if self.design == "relay":
            payload = torch.where(slot == 0, asked, before)
        else:
            payload = torch.where(slot == self.reads, asked, (5 * asked + 3 * slot + 7) % NUMBERS)
        fed = torch.zeros_like(hidden)
        fed[..., [ANY, THINKING]] = 1.0
        fed.scatter_(-1, (NEXT.start + slot + 1)[..., None], 1.0)
        fed.scatter_(-1, (PAYLOAD.start + payload)[..., None], 1.0)
        return fed

    @property
    def pad_id(self) -> int:
        return self._pad

    @property
    def begin_of_thought(self) -> int:
        return self._pad + 1

    @property
    def end_of_thought(self) -> int:
        return self._pad + 2

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        return (self._pad, self._pad + 1, self._pad + 2)


def said(problem: Problem) -> int:
    """The number that the planted reasoner says, unedited."""
    return int(problem.question.split()[1])


def planted_problems(n: int, wrong_every: int = 8) -> ProblemSet:
    """So many problems; every `wrong_every`-th has another gold answer than the number that the model will say."""
    found = []
    for i in range(n):
        number = 1 + (11 * i) % NUMBERS
        gold = number if i % wrong_every else 1 + number % NUMBERS
        op = "+*"[i % 2]
        left, right = (Fraction(gold), Fraction(1)) if op == "*" else (Fraction(gold + 1), Fraction(-1))
        steps = (Step(left, op, right, Fraction(gold)),)
        found.append(Problem(f"case_{i}", f"say {number} c{i}", Fraction(gold), steps=steps, split="test"))
    return ProblemSet(tuple(found), "planted")
