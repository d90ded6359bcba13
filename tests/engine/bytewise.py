"""A small random model that reads and writes bytes: it takes any text, and what it writes may be any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from thoughtgraft.models.checkpoint.assembly import build_projection
from thoughtgraft.models.checkpoint.read import write_checkpoint

UGLY = [
    "Zoë’s “naïve” café sells 3 crêpes at $4.50 each and 20% off; how much for 1,200?",
    'Tom pays $5 & gets $3 <b>back</b>. "\\frac{1}{2}" of $x$ is `code` | pipe | *star* [link](x).',
    "First line.\n\nSecond   line  after an empty one.\r\nThird\tline with 3/4, 0.25 and ½.",
    "  double  spaces   at  both  ends  of 4  ",
    "数学 with 😀, a zero\u200bwidth space and a line\u2028separator: 12 apples?",
    "<script>alert('x')</script> </table> {{ jinja }} {% raw %} 7 pens",
    "=1+1, @SUM(A1) [bold]rich[/bold] [/] :smile: 42",
    "5",
]
"""Questions as people write them, and worse."""


def write_bytewise(folder: Path, positions: int = 512) -> Path:
    """A CODI checkpoint of a two-layer Llama over single bytes, with a context of `positions`."""
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {"<|end|>": 256}
    inner: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=256,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm, projection = LlamaForCausalLM(config), build_projection(32, 32)
    config.vocab_size = 257
    return write_checkpoint(folder, lm, projection, tokenizer, config)
