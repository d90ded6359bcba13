"""The same model before any training: what its shape alone makes of a question, as a control."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM

from thoughtgraft.models.checkpoints import Checkpoint
from thoughtgraft.models.reasoner import LatentReasoner


def untrained_twin(model: LatentReasoner, seed: int = 0) -> LatentReasoner:
    """A model of the same shape with freshly initialised weights; tokenizer, protocol and K are the model's.

    Everything is initialised as its library initialises it before training: embeddings, layers and projection.

    Args:
        model: The model; left as it is.
        seed: Draws the weights. The global generator is left as it was.
    """
    twin = copy.copy(model)
    config = copy.deepcopy(model.lm.config)
    # Drawn on the CPU, so that the weights do not hang on the device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin.lm = AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation="sdpa")
        checkpoint = getattr(model, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint):
            feeder = copy.deepcopy(checkpoint.feeder).cpu()
            for module in feeder.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
            feeder.to(model.device)
            vars(twin)["checkpoint"] = replace(checkpoint, lm=twin.lm, feeder=feeder)
    twin.lm.to(model.device).eval().requires_grad_(False)
    twin.weight_hash = hashlib.sha256(f"untrained {seed} {model.weight_hash}".encode()).hexdigest()[:16]
    twin.name, twin.edit = f"{model.name}, untrained", None
    twin.remember()
    return twin
