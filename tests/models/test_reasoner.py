"""What every latent reasoner has: prompts with and without pads, text, limits, identity, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.engine.tiny import FAMILIES, loaded, questions, tiny
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine.rollout import rollout
from thoughtgraft.engine.rows import Row
from thoughtgraft.errors import ModelError
from thoughtgraft.models.protocols import find_protocol, padding
from thoughtgraft.models.reasoner import LatentReasoner, Prompt, attention_implementation

EVERY = pytest.mark.parametrize("family", FAMILIES)


@EVERY
def test_a_prompt_ends_in_begin_of_thought_and_starts_with_its_pads(family: str) -> None:
    model = tiny(family)
    bare, padded = model.prompt("Ana has 6 apples ."), model.prompt("Ana has 6 apples .", 3)
    assert bare.ids[-1] == model.checkpoint.bot_id
    assert padded.ids == (model.pad_id,) * 3 + bare.ids
    assert (bare.pad, padded.pad, len(padded)) == (0, 3, len(bare) + 3)


def test_a_prompt_begins_with_the_tokenizers_own_bos_if_it_has_one() -> None:
    llama, gpt2 = tiny("codi-llama"), tiny("codi-gpt2")
    assert llama.prompt("Ana has").ids[0] == llama.tokenizer.bos_token_id
    assert gpt2.tokenizer.bos_token_id not in gpt2.prompt("Ana has").ids


@EVERY
def test_double_spaces_and_margins_are_cleaned_as_in_the_official_code(family: str) -> None:
    model = tiny(family)
    assert model.prompt("  Ana has  6 apples . ") == model.prompt("Ana has 6 apples .")


@EVERY
def test_text_leaves_out_rows_that_the_tokenizer_does_not_know(family: str) -> None:
    model = tiny(family)
    ids = list(model.tokenizer("6 apples", add_special_tokens=False)["input_ids"])
    special = [model.pad_id, model.checkpoint.bot_id, model.end_of_thought]
    assert model.text([ids[0], *special, *ids[1:], model.decoding.ends[0]]) == model.text(ids) == "6 apples"


@EVERY
def test_identity_changes_with_what_changes_results_and_with_nothing_else(family: str) -> None:
    models = [
        tiny(family),
        tiny(family, "float32"),
        tiny(family, num_latents=5),
        tiny(family, protocol="official-padded"),
    ]
    assert len({m.model_hash for m in models}) == 4
    assert tiny(family, max_new_tokens=3).model_hash == models[0].model_hash
    assert models[1].identity["dtype"] == "float32"
    assert tiny(FAMILIES[0]).weight_hash != tiny(FAMILIES[1]).weight_hash


@EVERY
def test_layers_are_the_blocks_in_order(family: str) -> None:
    model = tiny(family)
    assert len(model.layers) == model.lm.config.num_hidden_layers == 3


def test_attention_is_put_back_even_after_an_error() -> None:
    model = tiny("codi-gpt2")
    before = model.lm.config._attn_implementation
    with pytest.raises(ZeroDivisionError), attention_implementation(model.lm, "eager"):
        assert model.lm.config._attn_implementation == "eager"
        raise ZeroDivisionError
    assert model.lm.config._attn_implementation == before != "eager"


def test_negative_numbers_of_latents_are_refused() -> None:
    with pytest.raises(ModelError, match="num_latents must not be negative; got -1"):
        tiny("codi-gpt2", num_latents=-1)


@EVERY
def test_a_question_that_leaves_no_room_is_named_with_the_fix(family: str) -> None:
    model = tiny(family, max_new_tokens=2)
    limit = model.max_positions
    assert limit is not None
    filler, bot = model.prompt("Ben has 26 books .").ids[-2:]
    fits = Prompt((filler,) * (limit - model.num_latents - 3) + (bot,))
    too_long = Prompt((filler, *fits.ids))
    rows = [Row(0, (Action(Feed.CLEAN),) * 6), Row(1, (Action(Feed.CLEAN),) * 6)]
    short = model.prompt(questions(family)[0])
    answers = rollout(model, [short, fits], rows).answers
    assert len(answers.token_ids[1]) == 1
    with pytest.raises(ModelError, match=rf"problem 1 .*too long.*at most {limit}.*Fix: shorten or drop that question"):
        rollout(model, [short, too_long], rows)


class Plain(LatentReasoner):
    """The least that an adapter must say."""

    def question_ids(self, question: str) -> list[int]:
        return [1, 2, 3]

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        return hidden

    pad_id = 0
    begin_of_thought = 3
    end_of_thought = 4
    forbidden_ids: tuple[int, ...] = ()


def small_lm(kind: str, **changes: Any) -> PreTrainedModel:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, **shape, num_key_value_heads=1, head_dim=8, vocab_size=20, **changes)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def make_plain(lm: PreTrainedModel) -> Plain:
    return Plain(lm, loaded("codi-gpt2", "float64").tokenizer, name="plain", weight_hash="0", max_new_tokens=3)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ],
)
def test_a_sliding_window_is_refused(kind: str, changes: dict[str, Any]) -> None:
    lm = small_lm(kind, **changes)
    before = lm.config._attn_implementation
    with pytest.raises(
        ModelError, match=r"plain has layers that do not attend to everything.*sliding_window=8.*full causal"
    ):
        make_plain(lm)
    assert lm.config._attn_implementation == before


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("mistral", {"sliding_window": None}), ("qwen2", {"use_sliding_window": False, "sliding_window": 8})],
)
def test_full_attention_of_the_same_architectures_is_taken_and_runs(kind: str, changes: dict[str, Any]) -> None:
    """A minimal adapter is all that the engine needs."""
    model = make_plain(small_lm(kind, **changes))
    result = rollout(model, [model.prompt("anything")], [Row(0, (Action(Feed.LIVE),) * 6)])
    assert result.fed.shape == (1, 6, 16)
    assert torch.equal(result.fed[0], result.hidden[0, :6])


def test_padding_is_to_the_longest_of_each_official_batch() -> None:
    official, padded = find_protocol("official"), find_protocol("official-padded")
    assert padding([3, 5, 4, 9, 1], official) == [0] * 5
    assert padding([3, 5, 4, 9, 1], padded, batch=3) == [2, 0, 1, 0, 8]
    assert padding([3, 5], padded) == [2, 0]


def test_unknown_protocols_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="unknown protocol; got 'oficial'; expected official, official-padded"):
        find_protocol("oficial")


def test_a_model_says_in_one_line_what_it_is() -> None:
    model = tiny("codi-gpt2", "float32", num_latents=3)
    model.name = "mine"
    assert repr(model) == "mine (codi): 3 layers, width 48, K = 3, protocol official, float32 on cpu"
    assert repr(model.under("official-padded")).endswith("protocol official-padded, float32 on cpu")
