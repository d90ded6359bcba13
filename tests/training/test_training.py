"""The trainer: reproducible, resumable to the step, learns, and exports what the loader reads."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch

from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.errors import ModelError
from thoughtgraft.models.load import load_model
from thoughtgraft.models.projection import build_projection
from thoughtgraft.problems.arithmetic import arithmetic
from thoughtgraft.training.codi import CodiObjective
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.curves import draw_curves, read_log
from thoughtgraft.training.data import IGNORE, Encoder, batches, problem_stream
from thoughtgraft.training.recipe import train
from thoughtgraft.training.tiny import tiny_lm, tiny_tokenizer
from thoughtgraft.training.trainer import learning_rate

CPU = torch.device("cpu")
SMALL = TrainingConfig(
    teacher_steps=2,
    max_steps=4,
    per_device_train_batch_size=8,
    bf16=False,
    steps_per_stage=1,
    save_steps=2,
    eval_steps=100,
    logging_steps=1,
)


AFTER = SMALL.teacher_steps  # a step of both tasks


@pytest.fixture(scope="module")
def validation():
    return arithmetic("validation")[:16]


@pytest.fixture(scope="module")
def objective():
    tokenizer = tiny_tokenizer()
    lm = tiny_lm(len(tokenizer), seed=0)
    lm.resize_token_embeddings(len(tokenizer) + 3, mean_resizing=False)
    return CodiObjective(lm, build_projection(128, 128), SMALL)


def test_the_tokenizer_knows_every_word_and_writes_readable_text():
    tokenizer = tiny_tokenizer()
    text = "<<25+5=30>> the answer is: 30"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    for problem in arithmetic("test")[:300]:
        assert (
            tokenizer.unk_token_id
            not in tokenizer(problem.question + problem.solution.replace("####", ""))["input_ids"]
        )


def test_a_batch_holds_question_reasoning_and_answer(validation):
    tokenizer = tiny_tokenizer()
    problems = list(validation)[:3]
    batch = Encoder(tokenizer)(problems)
    for i, problem in enumerate(problems):
        question = batch.question[i][batch.question_mask[i].bool()]
        assert tokenizer.decode(question, skip_special_tokens=True) == problem.question.lower()
        answer = batch.answer[i][batch.answer[i] != IGNORE]
        assert tokenizer.decode(answer, skip_special_tokens=True) == f"the answer is: {problem.answer}"
        assert tokenizer.decode(answer[batch.answer_colon[i]]) == ":"
        reasoning = batch.reasoning[i]
        assert tokenizer.decode(reasoning[batch.reasoning_colon[i]]) == ":"
        assert int(reasoning[batch.reasoning_colon[i] + 1]) == int(answer[batch.answer_colon[i] + 1])


def test_skipped_batches_are_the_ones_a_resumed_run_has_seen():
    encoder = Encoder(tiny_tokenizer())
    straight = list(islice(batches(problem_stream(None, 5), encoder, 4), 7))
    resumed = list(islice(batches(problem_stream(None, 5), encoder, 4, skip=4), 3))
    for a, b in zip(straight[4:], resumed, strict=True):
        assert torch.equal(a.question, b.question) and torch.equal(a.answer, b.answer)


def test_losses_do_not_depend_on_padding(objective, validation):
    """Sharing one left-padded question between both tasks gives each problem the loss it has by itself."""
    encoder = Encoder(tiny_tokenizer())
    problems = sorted(validation, key=lambda p: len(p.question))[:: len(validation) - 1]
    with torch.no_grad():
        together = objective.double()(encoder(problems), AFTER)
        alone = [objective(encoder([p]), AFTER) for p in problems]
    objective.float()
    lengths = {"ref_ce": lambda b: (b.reasoning != IGNORE).sum(), "ce": lambda b: (b.answer != IGNORE).sum()}
    for name, count in lengths.items():
        weights = torch.tensor([float(count(encoder([p]))) for p in problems])
        mean = sum(w * a[name] for w, a in zip(weights, alone, strict=True)) / weights.sum()
        assert together[name].item() == pytest.approx(mean.item(), rel=1e-5)


def test_exact_is_what_greedy_decoding_would_do(objective, validation):
    batch = Encoder(tiny_tokenizer())(list(validation))
    exact = objective.exact(batch)
    assert exact["explicit"].shape == exact["latent"].shape == (16,) and not exact["latent"].any()


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path, validation):
    whole = train("tiny", None, validation, SMALL, tmp_path / "whole", CPU)
    interrupted = SMALL.model_copy()
    from thoughtgraft.training.trainer import Trainer

    stop_at = 4
    original = Trainer.save

    def save_then_stop(self):
        original(self)
        if self.step == stop_at:
            raise KeyboardInterrupt

    Trainer.save = save_then_stop
    try:
        with pytest.raises(KeyboardInterrupt):
            train("tiny", None, validation, interrupted, tmp_path / "cut", CPU)
    finally:
        Trainer.save = original
    resumed = train("tiny", None, validation, interrupted, tmp_path / "cut", CPU)
    a, b = (load_model(path, device="cpu") for path in (whole, resumed))
    assert a.weight_hash == b.weight_hash


def test_the_exported_model_loads_and_thinks(tmp_path, validation):
    folder = train("tiny", None, validation, SMALL, tmp_path, CPU)
    model = load_model(folder, device="cpu")
    thoughts = collect_thoughts(model, validation, max_new_tokens=4, progress=False)
    assert thoughts.fed.shape == (16, 6, 128)
    assert json.loads((folder / "card.json").read_text())["recipe"]["max_steps"] == 4
    assert draw_curves(tmp_path).stat().st_size > 1000 and len(read_log(tmp_path)) >= 6


def test_another_recipe_in_the_same_folder_is_refused(tmp_path, validation):
    train("tiny", None, validation, SMALL, tmp_path, CPU)
    with pytest.raises(ModelError, match=r"max_steps=5.*expected max_steps=4.*Fix: repeat"):
        train("tiny", None, validation, SMALL.model_copy(update={"max_steps": 5}), tmp_path, CPU)


def test_a_base_that_cannot_be_loaded_is_a_clear_error(tmp_path, validation):
    with pytest.raises(ModelError, match="cannot be loaded"):
        train(str(tmp_path / "nothing"), None, validation, SMALL, tmp_path / "out", CPU)


def test_any_hugging_face_causal_lm_can_be_taught(tmp_path, validation):
    """A GPT-2 with the tiny tokenizer goes through the same trainer and loads back."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tiny_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=2, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    folder = train(str(tmp_path / "base"), None, validation, SMALL, tmp_path / "out", CPU)
    assert collect_thoughts(
        load_model(folder, device="cpu"), validation, max_new_tokens=2, progress=False
    ).fed.shape == (16, 6, 32)


def test_the_learning_rate_warms_up_twice_and_ends_at_nothing():
    config = TrainingConfig(teacher_steps=200, max_steps=1000)
    assert learning_rate(config, 0) < learning_rate(config, 99) == config.teacher_learning_rate
    assert learning_rate(config, 200) < learning_rate(config, 229)
    assert learning_rate(config, 1199) < 1e-5


def test_one_step_of_each_task_lowers_its_loss_on_the_batch(objective, validation):
    batch = Encoder(tiny_tokenizer())(list(validation))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    before = objective(batch, AFTER)
    for _ in range(5):
        optimizer.zero_grad()
        objective(batch, AFTER)["loss"].backward()
        optimizer.step()
    after = objective(batch, AFTER)
    assert after["ref_ce"] < before["ref_ce"] and after["ce"] < before["ce"]
