"""A loaded model that was edited is refused, or goes on under a name; what the engine does by itself is no edit."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.tiny import GOLDEN, questions
from tests.models.test_reasoner import make_plain, small_lm
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, parametrize
from transformers.models.llama import modeling_llama

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.evaluate import evaluate
from thoughtgraft.engine.executors import make_executor
from thoughtgraft.engine.features import Keep, run_features
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.run import run
from thoughtgraft.engine.verify.bench import disturbing, in_float32, listening
from thoughtgraft.engine.verify.suite import verify
from thoughtgraft.errors import ModelError, RunError
from thoughtgraft.models import live
from thoughtgraft.models.live import admitted, changes
from thoughtgraft.models.load import load_model, untrained_twin
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.readouts.readout import decode_thoughts
from thoughtgraft.records.export import load_records
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.problem import Problem, ProblemSet

PLAN = Plan((Arm("baseline"), Arm("swap", (1,))), n_donors=1)
PROBLEMS = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions("codi-llama")[:3])), "golden")
QUICK: dict[str, Any] = {"max_new_tokens": 3, "progress": False}


def golden(family: str = "codi-llama", **options: Any) -> Any:
    """A fresh model: these tests change it for good."""
    root = GOLDEN / family
    return load_model(root / "checkpoint", base=next(root.glob("base-*")), device="cpu", **options)


@pytest.fixture
def model() -> Any:
    return golden()


def mlp(model: LatentReasoner) -> Any:
    return model.layers[1].mlp


def doubled(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


def forward_hook(model: LatentReasoner) -> None:
    mlp(model).register_forward_hook(doubled)


def forward_pre_hook(model: LatentReasoner) -> None:
    mlp(model).register_forward_pre_hook(lambda module, args: (2 * args[0],))


def hook_on_the_projection(model: Any) -> None:
    model.checkpoint.feeder.register_forward_hook(doubled)


def overridden_forward(model: LatentReasoner) -> None:
    """As nnsight and accelerate do it."""
    module = mlp(model)
    before = module.forward
    module.forward = functools.update_wrapper(functools.partial(lambda *a: 2 * before(*a)), before)


def bound_forward(model: LatentReasoner) -> None:
    module = mlp(model)
    module.forward = types.MethodType(lambda self, x: x, module)


def parametrization(model: LatentReasoner) -> None:
    parametrize.register_parametrization(mlp(model).down_proj, "weight", Half())


def weight_norm(model: LatentReasoner) -> None:
    parametrizations.weight_norm(mlp(model).down_proj)


@torch.no_grad()
def in_place(model: LatentReasoner) -> None:
    mlp(model).down_proj.weight.mul_(1.01)


def through_data(model: LatentReasoner) -> None:
    """Leaves even the version counter of the parameter alone."""
    mlp(model).down_proj.weight.data[3, 4] += 1e-3


def two_numbers_exchanged(model: LatentReasoner) -> None:
    row = mlp(model).down_proj.weight.data[0]
    row[:2] = row[:2].flip(0).clone()


def signs_of_two(model: LatentReasoner) -> None:
    mlp(model).down_proj.weight.data[0, :2] *= -1


def another_parameter(model: LatentReasoner) -> None:
    mlp(model).down_proj.weight = nn.Parameter(mlp(model).down_proj.weight.detach() * 2)


def through_numpy(model: Any) -> None:
    model.checkpoint.feeder[1].bias.detach().numpy()[0] += 1


def a_buffer(model: Any) -> None:
    model.lm.model.rotary_emb.inv_freq.mul_(2)


def another_module(model: LatentReasoner) -> None:
    mlp(model).act_fn = nn.ReLU()


def another_attribute(model: Any) -> None:
    model.lm.model.norm.variance_epsilon = 0.1


def training_mode(model: Any) -> None:
    model.lm.train()


def a_layer_less(model: LatentReasoner) -> None:
    del model.layers[2]


def another_way_of_writing(model: Any) -> None:
    """What the library's own `generate` reads when reasoning is written out."""
    model.lm.generation_config.repetition_penalty = 2.0


def another_config(model: Any) -> None:
    model.lm.config.rms_norm_eps = 0.1


def another_tokenizer(model: Any) -> None:
    model.tokenizer.add_tokens(["zebra"])


def another_method(model: Any) -> None:
    model.project = lambda hidden, slot: hidden


EDITS: dict[Callable[[Any], None], str] = {
    forward_hook: r"a forward hook on model\.layers\.1\.mlp \(doubled\)",
    forward_pre_hook: r"a forward pre-hook on model\.layers\.1\.mlp \(forward_pre_hook\.<locals>\.<lambda>\)",
    hook_on_the_projection: r"a forward hook on part1 \(doubled\)",
    overridden_forward: r"model\.layers\.1\.mlp is another module",
    bound_forward: r"model\.layers\.1\.mlp is another module",
    parametrization: r"a parametrization of model\.layers\.1\.mlp\.down_proj",
    weight_norm: r"a parametrization of model\.layers\.1\.mlp\.down_proj",
    in_place: r"model\.layers\.1\.mlp\.down_proj\.weight has other numbers",
    through_data: r"model\.layers\.1\.mlp\.down_proj\.weight has other numbers",
    two_numbers_exchanged: r"model\.layers\.1\.mlp\.down_proj\.weight has other numbers",
    signs_of_two: r"model\.layers\.1\.mlp\.down_proj\.weight has other numbers",
    another_parameter: r"model\.layers\.1\.mlp\.down_proj\.weight has other numbers",
    through_numpy: r"part1\.1\.bias has other numbers",
    a_buffer: r"model\.rotary_emb\.inv_freq has other numbers",
    another_module: r"model\.layers\.1\.mlp\.act_fn is another module",
    another_attribute: r"model\.norm is another module",
    training_mode: r"the model itself is another module",
    another_way_of_writing: r"the model itself is another module",
    a_layer_less: r"model\.layers\.2\.self_attn\.q_proj\.weight is gone",
    another_config: r"config\.rms_norm_eps: 1e-06 there, 0\.1 now",
    another_tokenizer: r"tokenizer\.",
    another_method: r"another project\(\) of the adapter",
}
"""Ways in which people change a loaded model, and the words that name each."""


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edited_model_is_refused_by_name_with_the_fix(edit: Callable[[Any], None], model: Any) -> None:
    edit(model)
    with pytest.raises(ModelError, match=rf'is not as it was loaded; got .*{EDITS[edit]}.*Fix: .*identity="\.\.\."'):
        run(model, PROBLEMS, PLAN, **QUICK)


@contextmanager
def globally(register: Callable[[Any], Any], hook: Callable[..., Any]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def test_global_module_hooks_are_refused_too(model: Any) -> None:
    for register, words in (
        (register_module_forward_hook, "a global module forward hook"),
        (register_module_forward_pre_hook, "a global module forward pre-hook"),
    ):
        refused = pytest.raises(ModelError, match=rf"got {words} \(test_global_module_hooks_.*<lambda>\)")
        with globally(register, lambda *args: None), refused:
            run(model, PROBLEMS, PLAN, **QUICK)
    run(model, PROBLEMS, PLAN, **QUICK)


def test_a_forward_pass_that_a_library_patches_on_the_class_is_seen(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(model.lm.model.norm)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", lambda self, states: states)
        with pytest.raises(ModelError, match=r"\.\w*norm is another module"):
            run(model, PROBLEMS, PLAN, **QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, cos, sin: (q, k))
        with pytest.raises(ModelError, match=r"\.self_attn is another module"):
            run(model, PROBLEMS, PLAN, **QUICK)
    assert not changes(model)


def test_wrappers_of_other_libraries_are_seen(model: Any) -> None:
    peft = pytest.importorskip("peft")
    peft.get_peft_model(model.lm, peft.LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(ModelError, match=r"q_proj\.base_layer\.weight is new|q_proj\.weight is gone"):
        run(model, PROBLEMS, PLAN, **QUICK)
    hooks = pytest.importorskip("accelerate.hooks")
    other = golden()
    hooks.add_hook_to_module(other.layers[0], hooks.ModelHook())
    with pytest.raises(ModelError, match=r"model\.layers\.0 is another module"):
        run(other, PROBLEMS, PLAN, **QUICK)


def test_a_tensor_that_is_neither_parameter_nor_buffer_is_read_too(model: Any) -> None:
    rotary = model.lm.model.rotary_emb
    rotary.original_inv_freq = rotary.original_inv_freq * 2
    with pytest.raises(ModelError, match=r"model\.rotary_emb\.original_inv_freq has other numbers"):
        run(model, PROBLEMS, PLAN, **QUICK)


def test_a_run_and_its_clean_thoughts_read_the_weights_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []
    read = live.numbers_of
    monkeypatch.setattr(live, "numbers_of", lambda parts: looks.append(parts) or read(parts))
    run(model, PROBLEMS, PLAN, **QUICK)
    assert len(looks) == 1


def test_everything_that_runs_a_model_looks(model: Any, tmp_path: Path) -> None:
    thoughts = collect_thoughts(model, PROBLEMS, **QUICK)
    through_data(model)
    labels = problem_table(PROBLEMS)[["id"]]
    calls: list[Callable[..., Any]] = [
        lambda **name: run(model, PROBLEMS, PLAN, **QUICK, **name),
        lambda **name: collect_thoughts(model, PROBLEMS, **QUICK, **name),
        lambda **name: evaluate(model, PROBLEMS[:2], progress=False, **name),
        lambda **name: verify(model, PROBLEMS, level="core", answer_tokens=2, **name),
        lambda **name: decode_thoughts(model, thoughts, **name),
        lambda **name: run_features(
            model, PROBLEMS, Keep(labels, [0], "float32", untrained=False), tmp_path, study="s", **QUICK, **name
        ),
    ]
    model.max_new_tokens = 3
    for call in calls:
        with pytest.raises(ModelError, match="is not as it was loaded"):
            call()
        call(identity="a nudge")
    assert not (set(calls) - set(calls[:6]))
    assert RunStore.open(tmp_path).spec.model.endswith(", edited: a nudge")


def test_an_edited_model_no_longer_gets_the_stored_clean_records(model: Any, tmp_path: Path) -> None:
    clean = run(model, PROBLEMS, PLAN, tmp_path / "run", **QUICK)
    handle = model.lm.model.register_forward_hook(lambda *a: None)
    model.lm.lm_head.register_forward_hook(lambda module, args, logits: -logits)
    handle.remove()
    with pytest.raises(ModelError, match=r"got a forward hook on lm_head \("):
        run(model, PROBLEMS, PLAN, tmp_path / "run", **QUICK)
    with pytest.raises(RunError, match=r"(?s)holds another run.*edit: None there, \{'name': 'upside down'"):
        run(model, PROBLEMS, PLAN, tmp_path / "run", identity="upside down", **QUICK)
    assert load_records(tmp_path / "run")["model_edit"].isna().all()
    edited = run(model, PROBLEMS, PLAN, tmp_path / "edited", identity="upside down", **QUICK)
    assert not set(edited["cell"]) & set(clean["cell"])
    assert edited["text"].tolist() != clean["text"].tolist(), "the hook was at work"


def test_the_name_stands_in_every_record_in_run_json_and_on_every_page(model: Any, tmp_path: Path) -> None:
    in_place(model)
    run(model, PROBLEMS, PLAN, tmp_path / "run", identity="1% more", **QUICK)
    spec = RunStore.open(tmp_path / "run").spec
    assert spec.model_identity is not None and spec.model_identity["edit"]["name"] == "1% more"
    assert set(load_records(tmp_path / "run")["model_edit"]) == {"1% more"}
    assert read_status(tmp_path / "run").model.endswith("checkpoint, edited: 1% more")
    pages = write_report(tmp_path / "run", force=True)
    first_screen = pages.md.read_text()[:300]
    assert "edited: 1% more" in first_screen and "edited: 1% more" in pages.html.read_text()
    again = run(model, PROBLEMS, PLAN, tmp_path / "run", identity="1% more", **QUICK)
    assert len(again) == spec.n_cells, "the same edit under the same name goes on"


def test_another_edit_under_the_same_name_is_another_run(model: Any, tmp_path: Path) -> None:
    in_place(model)
    run(model, PROBLEMS, PLAN, tmp_path / "run", identity="mine", **QUICK)
    in_place(model)
    with pytest.raises(RunError, match=r"(?s)holds another run.*edit\.checksum: '\w+' there, '\w+' now"):
        run(model, PROBLEMS, PLAN, tmp_path / "run", identity="mine", **QUICK)
    with pytest.raises(RunError, match=r"(?s)holds another run.*edit\.name: 'mine' there, 'yours' now"):
        run(model, PROBLEMS, PLAN, tmp_path / "run", identity="yours", **QUICK)


def test_the_same_edit_has_the_same_identity_in_another_process_or_load() -> None:
    identities = []
    for _ in range(2):
        model = golden()
        in_place(model)
        forward_hook(model)
        identities.append(admitted(model, "both").identity)
    assert identities[0] == identities[1] != admitted(golden(), "both").identity


def test_an_edit_that_is_taken_back_is_no_edit(model: Any) -> None:
    before, weight = run(model, PROBLEMS, PLAN, **QUICK), mlp(model).down_proj.weight
    kept = weight.detach().clone()
    weight.data.mul_(2)
    named = admitted(model, "twice")
    weight.data.copy_(kept)
    assert run(model, PROBLEMS, PLAN, **QUICK).equals(before)
    with pytest.raises(ModelError, match="is not as it was when its edit was named; got no edit; expected"):
        run(named, PROBLEMS, PLAN, **QUICK)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "two\nlines", 5, True])
def test_a_name_that_nobody_can_read_is_refused(name: Any, model: Any) -> None:
    with pytest.raises(ModelError, match=r"needs a name that people can read; got .*expected 1 to 100 printable"):
        run(model, PROBLEMS, PLAN, identity=name, **QUICK)


def test_workers_cannot_make_an_edit_again(model: Any) -> None:
    pytest.importorskip("ray")
    in_place(model)
    executor = make_executor("ray", workers=1)
    with pytest.raises(ModelError, match=r"edited: mine: workers load the model anew, without the edit.*local engine"):
        run(model, PROBLEMS, PLAN, identity="mine", executor=executor, **QUICK)


@pytest.mark.parametrize("family", ["codi-llama", "codi-gpt2", "coconut-gpt2"])
def test_what_the_engine_does_by_itself_is_no_edit(family: str) -> None:
    model = golden(family)
    problems = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions(family)[:3])))
    with listening(model), disturbing(model, lambda embeds: embeds):
        assert not changes(model)
        run(model, problems, PLAN, **QUICK)
    reference_run(model, model.prompt(problems[0].question), max_new_tokens=2)
    verify(model, problems, level="core", answer_tokens=2)
    model.lm(torch.tensor([[1, 2]]), output_hidden_states=True, output_attentions=True)
    model.lm.generate(torch.tensor([[1, 2]]), max_new_tokens=2, do_sample=False, pad_token_id=0)
    model.lm.to("cpu").eval().requires_grad_(True).requires_grad_(False)
    assert not changes(model) and not changes(model.under("official"))
    assert not changes(untrained_twin(model))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_checking_a_half_precision_model_in_float32_is_no_edit_and_hides_none(dtype: str) -> None:
    model = golden(dtype=dtype)
    with in_float32(model):
        run(model, PROBLEMS, PLAN, **QUICK)
        assert model.identity["dtype"] == ("float64" if dtype == "float64" else "float32")
    assert not changes(model) and model.identity["dtype"] == dtype
    in_place(model)
    with pytest.raises(ModelError, match="is not as it was loaded"):
        verify(model, PROBLEMS)
    named = admitted(model, "1% more")
    with in_float32(named):
        run(named, PROBLEMS, PLAN, **QUICK)
    assert admitted(named) is named


def test_a_model_made_by_hand_is_what_it_was_when_its_init_was_over() -> None:
    lm = small_lm("llama")
    model = make_plain(lm)
    assert not changes(model)
    lm.model.norm.weight.data.mul_(2)
    assert list(changes(model)) == ["model.norm.weight has other numbers"]
