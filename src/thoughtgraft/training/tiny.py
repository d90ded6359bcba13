"""The tiny Llama and its word tokenizer, made from the vocabulary of `arithmetic`; the base of `tiny-codi`."""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from thoughtgraft.problems.arithmetic import vocabulary

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
