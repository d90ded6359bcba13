"""The base models of published checkpoints, whose configs those checkpoints do not carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _gpt2(d_model: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": d_model,
        "n_layer": layers,
        "n_head": heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "tie_word_embeddings": True,
    }


def _llama3(d_model: int, layers: int, heads: int, inner: int, *, rope_factor: float, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": d_model // heads,
        "intermediate_size": inner,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "tie_word_embeddings": tied,
    }


# The public config.json values of the bases that published checkpoints were trained on.
KNOWN_BASES: Mapping[str, Mapping[str, Any]] = {
    "openai-community/gpt2": _gpt2(768, 12, 12),
    "openai-community/gpt2-medium": _gpt2(1024, 24, 16),
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(2048, 16, 32, 8192, rope_factor=32.0, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": _llama3(3072, 28, 24, 8192, rope_factor=32.0, tied=True),
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(4096, 32, 32, 14336, rope_factor=8.0, tied=False),
}
