"""Coconut and the controls: what each is trained on is what its adapter runs, and what holds by construction holds."""

from __future__ import annotations

import pytest
import torch

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.run import run
from thoughtgraft.engine.verify.suite import verify
from thoughtgraft.errors import ModelError
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import require_thoughts
from thoughtgraft.tasks.sets.arithmetic import arithmetic
from thoughtgraft.training.config import METHODS, TrainingConfig
from thoughtgraft.training.data import ANSWER_PREFIX, COCONUT_ANSWER_PREFIX, IGNORE, Encoder
from thoughtgraft.training.objectives import CoconutObjective, without_steps
from thoughtgraft.training.recipe import load_base, make_objective, train

CPU = torch.device("cpu")


def config_of(method, **changes):
    small = {
        "num_latent": 0 if method in ("direct", "cot") else 6,
        "teacher_steps": 1,
        "max_steps": 5,
        "steps_per_stage": 1,
        "per_device_train_batch_size": 8,
        "bf16": False,
        "eval_steps": 100,
        "learning_rate": 1e-2,
    }
    return TrainingConfig(method=method, **(small | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each method's model after a few steps, and the same weights in its objective."""
    folder = tmp_path_factory.mktemp("methods")
    return {m: train("tiny", None, arithmetic("validation")[:8], config_of(m), folder / m, CPU) for m in METHODS}


def objective_of(method, folder):
    base = load_base("tiny", config_of(method))
    prefix = COCONUT_ANSWER_PREFIX if method == "coconut" else ANSWER_PREFIX
    encoder = Encoder(base.tokenizer, prefix)
    made = make_objective(base, encoder, config_of(method))
    made.load_state_dict(torch.load(folder.parent / "state.pt", weights_only=True)["objective"], strict=False)  # tied
    return made, encoder


def final_logits(method, made, batch):
    """The logits of the first token that is written, as trained at the end [V]."""
    if method == "coconut":
        return made._written(batch, made.config.max_latent_stage + 1)[0][0, 0]
    if method == "cot":
        return made._written(batch)[0, 0]
    return made._both_tasks(batch, False)[1][0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_the_adapter_runs_what_was_trained(method, trained):
    model = load_model(trained[method], device="cpu")
    assert model.family == method
    made, encoder = objective_of(method, trained[method])
    for problem in list(arithmetic("validation"))[:3]:
        with torch.no_grad():
            expected = final_logits(method, made, encoder([problem]))
        got = reference_run(model, model.prompt(problem.question), max_new_tokens=1).first_logits
        assert (got - expected).abs().max() < 1e-4


def test_in_a_pause_model_a_swap_is_the_identity(trained):
    model = load_model(trained["pause"], device="cpu")
    problems = arithmetic("validation")[:6]
    thoughts = collect_thoughts(model, problems, progress=False)
    assert (thoughts.fed == thoughts.fed[:1]).all()
    every = tuple(range(6))
    arms = [Arm(method, slots) for method in ("swap", "mean") for slots in [*((k,) for k in every), every]]
    records = run(model, problems, Plan((Arm("baseline"), *arms), n_donors=3, seed=0), progress=False)
    assert not records.changed[records.method != "baseline"].any()
    prompt = model.prompt(problems[0].question)
    clean = reference_run(model, prompt, max_new_tokens=1).first_logits
    for slot in every:
        zero = reference_run(
            model, prompt, schedule(Arm("zero", (slot,)), 6), edit=lambda k, live: 0 * live, max_new_tokens=1
        )
        assert (zero.first_logits - clean).abs().max() > 1e-5, "its slots do reach the output"


def test_every_model_passes_the_checks_of_its_kind(trained):
    problems = arithmetic("validation")[:3]
    certificates = {m: verify(load_model(trained[m], device="cpu"), problems, answer_tokens=2) for m in METHODS}
    for method, certificate in certificates.items():
        assert certificate.passed, (method, certificate.failed)
    assert certificates["pause"].shared_slots == tuple(range(6)) and not certificates["codi"].shared_slots
    assert any("no slot to edit" in note for note in certificates["cot"].notes)


@pytest.mark.parametrize(("method", "why"), [("direct", "answer at once"), ("cot", "out in words")])
def test_a_model_without_thoughts_says_so(method, why, trained):
    model = load_model(trained[method], device="cpu")
    assert model.num_latents == 0
    thoughts = collect_thoughts(model, arithmetic("validation")[:3], progress=False)
    assert thoughts.fed.shape == (3, 0, 128) and thoughts.hidden.shape == (3, 1, 128)
    with pytest.raises(ModelError, match="no thoughts to edit or to read") as error:
        require_thoughts(model)
    assert error.match(why)
    with pytest.raises(ModelError, match="is fed no thoughts"):
        load_model(trained[method], device="cpu", num_latents=3)


def test_a_pause_model_has_only_the_vectors_that_it_learned(trained):
    assert load_model(trained["pause"], device="cpu", num_latents=2).num_latents == 2
    with pytest.raises(ModelError, match="too few pause vectors"):
        load_model(trained["pause"], device="cpu", num_latents=7)


def test_steps_leave_from_the_left():
    end = 9
    tail = torch.tensor([[1, end, 2, end, 3, 0], [4, end, 5, 0, IGNORE, IGNORE]])
    assert without_steps(tail, end, 0).tolist() == tail.tolist()
    assert without_steps(tail, end, 1).tolist() == [[2, end, 3, 0], [5, 0, IGNORE, IGNORE]]
    assert without_steps(tail, end, 2).tolist() == without_steps(tail, end, None).tolist() == [[3, 0], [5, 0]]


def test_coconut_moves_from_stage_to_stage():
    config = config_of("coconut", teacher_steps=2, max_steps=9, steps_per_stage=2)
    base = load_base("tiny", config)
    made = CoconutObjective(base.lm, Encoder(base.tokenizer).step_end, config)
    assert [made.stage(step) for step in range(11)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "direct", "num_latent": 6}, "feeds no thoughts"),
        ({"method": "coconut", "num_latent": 5}, "same number of thoughts"),
        ({"method": "coconut", "max_steps": 1500}, r"last stage.*never be trained.*3 stages of 500.*above 1500"),
        ({"method": "pause", "num_latent": 0}, "feeds thoughts.*--method direct"),
        ({"max_steps": 0, "teacher_steps": 0}, "nothing to train"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": "sgd"}, "--optim is not usable.*'sgd'.*'adamw' or 'muon'"),
        ({"prj_dim": -3}, "--prj-dim is not usable; got -3; expected at least 1"),
        ({"learning_rate": -1.0}, "--learning-rate is not usable.*greater than 0"),
    ],
)
def test_an_option_that_cannot_be_is_named_as_it_is_typed(changes, message):
    with pytest.raises(ModelError, match=message):
        TrainingConfig.of(**changes)
