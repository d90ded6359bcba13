"""A run goes on with the model, config, tokenizer, LoRA alpha and answer limit that it began with; others are named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.tiny import GOLDEN, questions

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import answer_identity, collect_thoughts
from thoughtgraft.engine.features import Keep, run_features
from thoughtgraft.engine.ray import Worker, worker_versions
from thoughtgraft.engine.run import run
from thoughtgraft.errors import ModelError, RunError
from thoughtgraft.models.load import load_model
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.export import load_records
from thoughtgraft.records.store import RunStore
from thoughtgraft.studies.resampling.report import write_report
from thoughtgraft.tasks.files import problem_table
from thoughtgraft.tasks.problem import Problem, ProblemSet
from thoughtgraft.thoughts import Thoughts

PLAN = Plan((Arm("baseline"), Arm("swap", (1,)), Arm("noise", (2,))), n_donors=2, seed=5)
TOKENS = 4


def problem_set(family: str) -> ProblemSet:
    return ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions(family)[:3])), "golden")


class Folder:
    """A copy of a golden checkpoint that is edited as files, and the model that it then loads as."""

    def __init__(self, family: str, to: Path) -> None:
        self.family, self.checkpoint, self.base = family, to / "checkpoint", to / "base"
        shutil.copytree(GOLDEN / family / "checkpoint", self.checkpoint)
        shutil.copytree(next((GOLDEN / family).glob("base-*")), self.base)

    def load(self, **options: Any) -> LatentReasoner:
        return load_model(self.checkpoint, base=self.base, device="cpu", **options)

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        content = json.loads((self.base / name).read_text())
        change(content)
        (self.base / name).write_text(json.dumps(content))

    def set(self, **values: Any) -> None:
        self.edit("config.json", lambda config: config.update(values))


def exchange_two_words(tokenizer: Any) -> None:
    vocab = tokenizer["model"]["vocab"]
    first, second = sorted(word for word in vocab if word.isalpha())[:2]
    vocab[first], vocab[second] = vocab[second], vocab[first]


def another_normalizer(tokenizer: Any) -> None:
    tokenizer["normalizer"] = {"type": "Lowercase"}


def another_decoder(tokenizer: Any) -> None:
    tokenizer["decoder"] = {"type": "ByteFallback"}


def setting(**values: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.set(**values)


def rewriting(change: Callable[[Any], None]) -> Callable[[Folder], None]:
    return lambda folder: folder.edit("tokenizer.json", change)


EDITS: dict[str, tuple[Callable[[Folder], None], str]] = {
    "codi-llama, rope_theta": (setting(rope_theta=5e5), "config.rope_parameters.rope_theta: 10000.0 there, 500000.0"),
    "codi-llama, norm epsilon": (setting(rms_norm_eps=1e-2), "config.rms_norm_eps: 1e-06 there, 0.01 now"),
    "codi-llama, activation": (setting(hidden_act="gelu"), "config.hidden_act: 'silu' there, 'gelu' now"),
    "codi-gpt2, norm epsilon": (setting(layer_norm_epsilon=1e-2), "config.layer_norm_epsilon: 1e-05 there, 0.01 now"),
    "codi-gpt2, activation": (setting(activation_function="relu"), "config.activation_function: 'gelu_new' there, 're"),
    "codi-gpt2, attention scaling": (
        setting(scale_attn_by_inverse_layer_idx=True),
        "config.scale_attn_by_inverse_layer_idx: False there, True now",
    ),
    "codi-llama, a key that nobody knows": (setting(wobble=3), "config.wobble: None there, 3 now"),
    "codi-llama, two words exchanged": (rewriting(exchange_two_words), "tokenizer.vocabulary: '"),
    "codi-gpt2, normalizer": (rewriting(another_normalizer), "tokenizer.normalizer: None there, '"),
    "codi-gpt2, decoder": (rewriting(another_decoder), "tokenizer.decoder: None there, '"),
}
"""Edits of a model's files that leave its weights alone, and the words that must name each."""


def stored(folder: Path) -> dict[str, str]:
    """Every file of a run by its content, but for what each start may write: a lock, a sign of life."""
    skip = {"run.lock", "heartbeat.json"}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in skip]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_files_is_another_model_and_continues_no_run(name: str, tmp_path: Path) -> None:
    (edit, said), family = EDITS[name], name.partition(",")[0]
    words = re.escape(said)
    folder, problems = Folder(family, tmp_path), problem_set(family)
    before = folder.load()
    first = run(before, problems, PLAN, tmp_path / "run", max_new_tokens=TOKENS, progress=False)
    kept = stored(tmp_path / "run")
    edit(folder)
    after = folder.load()
    assert after.weight_hash == before.weight_hash and after.model_hash != before.model_hash
    keys = [{c.key for c in PLAN.cells(problems, answer_identity(m, TOKENS))} for m in (before, after)]
    assert keys[0] == set(first["cell"]) and not keys[0] & keys[1]
    with pytest.raises(RunError, match=rf"(?s)run holds another run.*{words}.*use --out another folder"):
        run(after, problems, PLAN, tmp_path / "run", max_new_tokens=TOKENS, progress=False)
    assert stored(tmp_path / "run") == kept
    thoughts = Thoughts.load(tmp_path / "run" / "thoughts.safetensors")
    with pytest.raises(RunError, match=rf"(?s)the thoughts are of another model.*{words}.*collect them anew"):
        run(after, problems, PLAN, thoughts=thoughts, max_new_tokens=TOKENS, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"use_cache": False},
        {"transformers_version": "4.0.0"},
        {"architectures": ["Another"]},
        {"initializer_range": 0.5, "attention_dropout": 0.5},
        {"torch_dtype": "bfloat16"},
        {"_name_or_path": "/home/ana/llama"},
    ],
)
def test_what_no_number_hangs_on_is_no_other_model(change: dict[str, Any], tmp_path: Path) -> None:
    folder = Folder("codi-llama", tmp_path)
    before = folder.load()
    folder.set(**change)
    after = folder.load()
    assert after.identity == before.identity
    after.lm.set_attn_implementation("eager")
    after.tokenizer(["4 apples", "5"], truncation=True, max_length=2)  # leaves its traces in the tokenizer
    assert after.under("official").model_hash == before.model_hash


def test_the_identity_is_the_same_in_any_place(tmp_path: Path) -> None:
    """Another folder, another process by its recipe, its copies under a protocol and back, another batch."""
    model = Folder("codi-llama", tmp_path / "a").load()
    other = Folder("codi-llama", tmp_path / "b").load()
    assert model.recipe is not None
    assert model.identity == other.identity == model.recipe(device="cpu").identity
    assert model.under("official-padded").under("official").identity == model.identity
    assert json.loads(json.dumps(model.identity)) == model.identity
    problems = problem_set("codi-llama")
    thoughts = [collect_thoughts(model, problems, batch_size=n, progress=False) for n in (1, 3)]
    assert thoughts[0].identity == thoughts[1].identity == answer_identity(other)


def test_another_answer_limit_is_another_run(tmp_path: Path) -> None:
    folder, problems = Folder("codi-gpt2", tmp_path), problem_set("codi-gpt2")
    model = folder.load()
    short = run(model, problems, PLAN, tmp_path / "run", max_new_tokens=2, progress=False)
    kept = stored(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["max_new_tokens"] == 2
    for limit, now in ((5, "5"), (None, "256")):
        with pytest.raises(RunError, match=rf"(?s)holds another run.*max_new_tokens: 2 there, {now} now"):
            run(model, problems, PLAN, tmp_path / "run", max_new_tokens=limit, progress=False)
    assert stored(tmp_path / "run") == kept
    long = run(model, problems, PLAN, max_new_tokens=5, progress=False)
    assert not set(short["cell"]) & set(long["cell"])
    with pytest.raises(RunError, match=r"(?s)the thoughts are of another model.*max_new_tokens: 2 there, 5 now"):
        run(model, problems, PLAN, thoughts=collect_thoughts(model, problems, max_new_tokens=2, progress=False),
            max_new_tokens=5, progress=False)  # fmt: skip
    model.max_new_tokens = 2  # the same limit, asked for by another name
    assert run(model, problems, PLAN, tmp_path / "run", progress=False).equals(short)


def test_another_answer_limit_is_another_run_of_features_too(tmp_path: Path) -> None:
    folder, problems = Folder("codi-gpt2", tmp_path), problem_set("codi-gpt2")
    labels = problem_table(problems)[["id"]]

    def extract(limit: int) -> None:
        run_features(
            folder.load(), problems, Keep(labels, [0], "float32", untrained=False), tmp_path / "run",
            study="operations", max_new_tokens=limit, progress=False,
        )  # fmt: skip

    extract(2)
    with pytest.raises(RunError, match=r"(?s)holds another run.*max_new_tokens: 2 there, 3 now"):
        extract(3)
    folder.set(activation_function="relu")
    with pytest.raises(RunError, match=r"(?s)holds another run.*config\.activation_function"):
        extract(2)


def test_another_lora_alpha_is_another_run(tmp_path: Path) -> None:
    folder, problems = Folder("codi-llama", tmp_path), problem_set("codi-llama")
    run(folder.load(), problems, PLAN, tmp_path / "run", max_new_tokens=TOKENS, progress=False)
    kept = stored(tmp_path / "run")
    with pytest.raises(RunError, match=r"(?s)holds another run.*lora_alpha: '32' there, '16' now"):
        run(folder.load(lora_alpha=16), problems, PLAN, tmp_path / "run", max_new_tokens=TOKENS, progress=False)
    assert stored(tmp_path / "run") == kept
    assert folder.load(lora_alpha=32.0).identity == folder.load().identity


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_latents": 3}, "num_latents: 6 there, 3 now"),
        ({"dtype": "float64"}, "dtype: 'float32' there, 'float64' now"),
        ({"protocol": "official-padded"}, "protocol: 'official' there, 'official-padded' now"),
        ({"prompt_suffix": "\n"}, r"prompt\.suffix: '' there"),
    ],
)
def test_every_other_part_is_named_once(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder, problems = Folder("codi-llama", tmp_path), problem_set("codi-llama")
    run(folder.load(), problems, PLAN, tmp_path / "run", max_new_tokens=TOKENS, progress=False)
    with pytest.raises(RunError, match=words) as refused:
        run(folder.load(**options), problems, PLAN, tmp_path / "run", max_new_tokens=TOKENS, progress=False)
    lines = str(refused.value).splitlines()
    assert len(set(lines)) == len(lines)


def test_a_worker_whose_files_differ_is_refused_by_what_differs(tmp_path: Path) -> None:
    here, there = Folder("codi-gpt2", tmp_path / "here"), Folder("codi-gpt2", tmp_path / "there")
    there.set(layer_norm_epsilon=1e-2)
    worker = Worker(there.load().recipe, "cpu", 1, None)  # type: ignore[arg-type]
    said = r"a worker loaded another model; got config\.layer_norm_epsilon: 1e-05 here, 0\.01 on the worker; expected"
    with pytest.raises(ModelError, match=said):
        worker.load(here.load().identity, worker_versions())


def test_an_adapter_with_a_prompt_of_its_own_is_another_model(tmp_path: Path) -> None:
    model = Folder("codi-llama", tmp_path).load()
    kind = type(model)

    class Politely(kind):  # type: ignore[valid-type,misc]
        def question_ids(self, question: str) -> list[int]:
            return super().question_ids(f"{question} please")

    polite = Politely(model.checkpoint)  # type: ignore[attr-defined]
    assert polite.model_hash != model.model_hash == kind(model.checkpoint).model_hash  # type: ignore[attr-defined]


def test_a_run_of_the_first_schema_is_read_and_not_continued(rule1_run: Path) -> None:
    kept = stored(rule1_run)
    spec, records = RunStore.open(rule1_run).spec, load_records(rule1_run)
    assert (spec.model_identity, spec.max_new_tokens, spec.task) == (None, None, None)
    assert set(records["run_id"]) == {spec.run_id}, "the run id is the one that its records hold"
    assert records["model_edit"].isna().all() and len(records) == spec.n_cells
    model = load_model("tiny-codi", device="cpu")
    now = spec.model_copy(update={"model_hash": model.model_hash, "model_identity": model.identity})
    said = (
        r"was begun by an earlier version, which did not write down the model's config, tokenizer and longest answer, "
        r"so nothing can prove that its records and new ones would be of one model\. Fix: use --out another folder; "
    )
    with pytest.raises(RunError, match=said):
        RunStore.create(rule1_run, now)
    problems = ProblemSet(tuple(Problem(f"p{i}", f"Ana has {i} apples .", None) for i in range(2)))
    with pytest.raises(RunError, match=said):
        run(model, problems, Plan((Arm("baseline"),)), rule1_run, progress=False)
    old = Thoughts.load(rule1_run / "thoughts.safetensors")
    with pytest.raises(
        RunError, match=r"the thoughts are of a model that cannot be told; got no word of.*collect them"
    ):
        run(model, problems, Plan((Arm("baseline"),)), thoughts=old, progress=False)
    assert stored(rule1_run) == kept
    assert write_report(rule1_run).html.is_file()
