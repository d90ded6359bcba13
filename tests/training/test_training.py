"""The trainer: reproducible, resumable to the step, learns, and exports what the loader reads."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.errors import ModelError
from thoughtgraft.models.checkpoint.assembly import build_projection
from thoughtgraft.models.checkpoint.format import FAMILIES
from thoughtgraft.models.load import ADAPTERS, load_model
from thoughtgraft.tasks.problem import ProblemSet
from thoughtgraft.tasks.sets.arithmetic import arithmetic
from thoughtgraft.training.card import add_accuracies, draw_curves, read_log
from thoughtgraft.training.config import TrainingConfig
from thoughtgraft.training.data import IGNORE, Encoder, batches, problem_stream
from thoughtgraft.training.objectives import CodiObjective
from thoughtgraft.training.recipe import Base, load_base, make_encoder, prepare, tiny_lm, tiny_tokenizer, train
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


class Characters:
    """Writes texts as their characters: unlike the tiny tokenizer it tells white space apart."""

    eos_token_id = 1

    def __call__(self, texts, add_special_tokens=True):
        one = isinstance(texts, str)
        ids = [[ord(c) for c in text] for text in ([texts] if one else texts)]
        return {"input_ids": ids[0] if one else ids}


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
        assert tokenizer.decode(answer, skip_special_tokens=True) == f"the answer is: {problem.gold}"
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


def test_training_reads_the_prompt_that_the_model_will_be_asked(tmp_path, validation):
    """Also where a question has double spaces, an edge of white space or a last line."""
    texts = ("Tom has 3  bags of 4 apples.\n", "  Tom has 3 bags. ")
    problems = [replace(validation[0], question=text) for text in texts]
    for method in ("codi", "pause", "direct", "cot", "coconut"):
        config = TrainingConfig(method=method, num_latent=0 if method in ("direct", "cot") else 6)
        start = load_base("tiny", config)
        spaces = Characters()
        encoder = make_encoder(Base(start.lm, spaces, start.config), config)
        batch = encoder(problems)
        reasoner = ADAPTERS[method].__new__(ADAPTERS[method])
        reasoner.tokenizer, reasoner.checkpoint = spaces, SimpleNamespace(bot_id=-1)
        reasoner.prompt_suffix = FAMILIES[method].suffix
        for row, mask, text in zip(batch.question, batch.question_mask, texts, strict=True):
            assert row[mask.bool()].tolist() == reasoner.question_ids(text)[:-1], method


def test_a_model_is_fed_as_many_thoughts_as_it_was_trained_with(tmp_path, validation):
    for method in ("codi", "coconut"):
        recipe = SMALL.model_copy(update={"method": method, "num_latent": 3})
        folder = train("tiny", None, validation, recipe, tmp_path / method, CPU)
        model = load_model(folder, device="cpu")
        assert (model.num_latents, model.trained_latents) == (3, 3)
        (folder / "card.json").unlink()
        assert load_model(folder, device="cpu").num_latents == 6, "the official recipes' number, where no file says"


def test_a_training_that_was_asked_to_stop_ends_between_two_steps(tmp_path, validation):
    whole = train("tiny", None, validation, SMALL, tmp_path / "whole", CPU)
    asked = iter([False, False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train("tiny", None, validation, SMALL, tmp_path / "cut", CPU, lambda: next(asked))
    assert torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["step"] == 3
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "ti')  # and a crash
    resumed = train("tiny", None, validation, SMALL, tmp_path / "cut", CPU)
    assert load_model(resumed, device="cpu").weight_hash == load_model(whole, device="cpu").weight_hash
    assert {entry["step"] for entry in read_log(tmp_path / "cut")} == set(range(1, 7))


def test_a_finished_training_is_left_as_it_is(tmp_path, validation):
    folder = train("tiny", None, validation, SMALL, tmp_path, CPU)
    add_accuracies(folder, "arithmetic:test", [], {"weight_hash": "measured"}, "--limit 3")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert train("tiny", None, validation, SMALL, tmp_path, CPU) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_data_in_the_same_folder_is_refused(tmp_path, validation):
    train("tiny", None, validation, SMALL, tmp_path, CPU)
    problems = prepare(arithmetic("test")[:16], validation, None, SMALL)
    with pytest.raises(ModelError, match=r"another recipe; got problems=\w+; expected problems=arithmetic:train"):
        train("tiny", problems, validation, SMALL, tmp_path, CPU)
    with pytest.raises(ModelError, match="got validation="):
        train("tiny", None, validation[:8], SMALL, tmp_path, CPU)


def test_a_damaged_state_is_named(tmp_path, validation):
    train("tiny", None, validation, SMALL, tmp_path, CPU)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"state\.pt cannot be read.*remove it to start again"):
        train("tiny", None, validation, SMALL, tmp_path, CPU)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, validation):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"file cannot be written.*choose a folder"):
        train("tiny", None, validation, SMALL, tmp_path / "file", CPU)


def test_a_folder_of_other_things_is_left_alone(tmp_path, validation):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"holds other things and no training; got notes\.txt"):
        train("tiny", None, validation, SMALL, tmp_path, CPU)


def test_a_start_that_saved_nothing_leaves_no_lines(tmp_path, validation):
    (tmp_path / "log.jsonl").write_text('{"step": 99, "time": 0}\n')
    train("tiny", None, validation, SMALL, tmp_path, CPU)
    assert {entry["step"] for entry in read_log(tmp_path)} == set(range(1, 7))


def test_a_vocabulary_that_cannot_read_the_problems_is_refused(tmp_path, validation):
    odd = tuple(replace(p, question=f"Zebras quarrel incessantly: {p.question}") for p in arithmetic("test")[:16])
    problems = prepare(ProblemSet(odd, "zebras"), validation, None, SMALL)
    with pytest.raises(
        ModelError, match=r"vocabulary of tiny does not hold the words of zebras; got \d+% of the tokens"
    ):
        train("tiny", problems, validation, SMALL, tmp_path, CPU)
    assert not list(tmp_path.iterdir())


def test_a_base_that_lacks_weights_is_refused(tmp_path, validation):
    """The library would train random weights in their place."""
    tokenizer = tiny_tokenizer()
    tiny_lm(len(tokenizer), seed=5).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {f"wrapper.{name}": value for name, value in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match=r"lacks weights.*not in its file, such as"):
        train(str(tmp_path), None, validation, SMALL, tmp_path / "out", CPU)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be loaded"):
        train(str(tmp_path), None, validation, SMALL, tmp_path / "out", CPU)


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
