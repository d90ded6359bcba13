"""The certificate passes on honest models, fails in the right words, and tells dead slots from empty ones.

That each check can fail, and on what, is in tests/mutations.
"""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tests.engine.tiny import EVERY_MODEL, GOLDEN, loaded, questions, tiny
from torch import Tensor

from thoughtgraft.engine import latents as clean
from thoughtgraft.engine.verify import bench as bench_module
from thoughtgraft.engine.verify import records as records_module
from thoughtgraft.engine.verify.expected import Measured
from thoughtgraft.engine.verify.statements import STATEMENTS, at_least, at_most
from thoughtgraft.engine.verify.suite import verify
from thoughtgraft.engine.verify.weights import fingerprint
from thoughtgraft.errors import CheckpointError, ModelError, PlanError
from thoughtgraft.models.checkpoint.audit import Fingerprint, read_fingerprint, write_fingerprint
from thoughtgraft.models.codi import CodiReasoner
from thoughtgraft.models.load import load_model
from thoughtgraft.models.names import model_folder
from thoughtgraft.records.certificate import Certificate
from thoughtgraft.tasks.load import load_problems
from thoughtgraft.tasks.problem import Problem, ProblemSet


def problems(family: str) -> ProblemSet:
    return ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions(family)[:3])))


@functools.cache
def certificate_of(family: str, dtype: str) -> Certificate:
    return verify(loaded(family, dtype), problems(family), answer_tokens=4)


@pytest.mark.parametrize(("family", "dtype"), [(f, "float32") for f in EVERY_MODEL] + [("codi-llama", "float64")])
def test_honest_models_pass_every_check(family, dtype):
    certificate = certificate_of(family, dtype)
    assert certificate.passed, [(c.name, c.figure, c.threshold) for c in certificate.checks]
    assert certificate.to_json()["checks"][0]["figure"] == certificate.checks[0].figure


def test_the_checks_hold_where_questions_are_encoded_in_parts(monkeypatch):
    monkeypatch.setattr(clean, "CPU_TOKENS", 1)
    certificate = verify(tiny("codi-gpt2", "float32"), problems("codi-gpt2"), answer_tokens=2)
    assert certificate.passed, [(c.name, c.figure, c.threshold) for c in certificate.checks if not c.passed]


def test_a_model_whose_thoughts_overflow_is_refused_in_a_sentence():
    model = load_model("tiny-codi", device="cpu", dtype="float32")  # its own: others are shared by tests
    with torch.no_grad():
        next(model.parts[1].parameters()).mul_(1e30)
    with pytest.raises(ModelError, match="not finite numbers; got NaN or infinite in"):
        verify(model, load_problems("arithmetic:test", n=2), identity="overflowing")


def test_tiny_codi_passes_every_check_and_its_fingerprint():
    model = load_model("tiny-codi", device="cpu", dtype="float32")
    recorded = read_fingerprint(model_folder("tiny-codi"))
    certificate = verify(model, load_problems("arithmetic:test", n=4), recorded=recorded, answer_tokens=4)
    assert certificate.passed, [(c.name, c.figure, c.threshold, c.detail) for c in certificate.checks if not c.passed]
    found = {c.name: c.detail for c in certificate.checks}
    assert found["fingerprint"] == "0 of 16 answers differ"


def test_a_fingerprint_changed_by_hand_or_of_another_protocol_is_told(tmp_path):
    assert read_fingerprint(tmp_path) is None
    taken = Fingerprint("beef", "official", 6, ("What?",), ("42",))
    path = write_fingerprint(tmp_path, taken)
    assert read_fingerprint(tmp_path) == taken
    other = tiny("codi-gpt2", "float32", protocol="official-padded")
    assert "not compared: it is of protocol official with 6 thoughts" in str(fingerprint(other, taken))
    path.write_text(path.read_text().replace("42", "43"))
    with pytest.raises(CheckpointError, match=r"was changed by hand.*Fix: record it again"):
        read_fingerprint(tmp_path)


def test_visible_padding_fails_and_says_whose_fault_it_is():
    model = tiny("codi-llama", "float32", protocol="official-padded")
    certificate = verify(model, problems("codi-llama"), level="core", answer_tokens=2)
    assert certificate.failed == ("padding probe",)
    probe = next(c for c in certificate.checks if c.name == "padding probe")
    assert "3 of 3 outputs change with the length of the question beside them" in probe.detail
    assert "official-padded shows the padding" in probe.detail
    assert probe.consequence.startswith("answers depend on the length of the problems beside them")


def test_half_precision_is_checked_in_float32_and_left_as_it_was():
    model = load_model(GOLDEN / "codi-gpt2/checkpoint", base=GOLDEN / "codi-gpt2/base-tiny-gpt2", dtype="bfloat16")
    before = [p.clone() for part in model.parts for p in part.parameters()]
    certificate = verify(model, problems("codi-gpt2"), level="core", answer_tokens=2)
    assert certificate.passed and certificate.dtype == "bfloat16" and certificate.model_hash == model.model_hash
    assert any("float32" in note for note in certificate.notes)
    after = [p for part in model.parts for p in part.parameters()]
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


class Deaf(CodiReasoner):
    """Replaces whatever is fed at one position by the same vector: a slot that nothing reads."""

    position = -1

    def forward(self, embeds: Tensor, positions: Tensor, mask: Tensor, cache: Any = None, prefix: Any = None) -> Tensor:
        constant = torch.ones_like(embeds)
        return super().forward(
            torch.where((positions == self.position)[..., None], constant, embeds), positions, mask, cache, prefix
        )


def test_a_slot_that_nothing_reads_is_structurally_null_and_fails_by_name():
    model = Deaf(loaded("codi-gpt2", "float64").checkpoint)
    question = problems("codi-gpt2")[0].question
    other = next(p for p in questions("codi-gpt2")[1:] if len(model.prompt(p)) == len(model.prompt(question)))
    pair = ProblemSet((Problem("0", question, None), Problem("1", other, None)))
    model.position = len(model.prompt(question)) + 4
    certificate = verify(model, pair, level="core", answer_tokens=2)
    assert certificate.dead_slots == (4,)
    check = {c.name: c for c in certificate.checks}
    assert not check["no dead slot"].passed
    assert check["no dead slot"].detail == "structurally null: CT4"
    assert "0 by construction" in check["no dead slot"].consequence
    # The other slots are judged by themselves.
    assert check["donor swaps reach the logits"].passed
    assert check["the checks can fail"].passed
    assert any(note.startswith("CT4: structurally null") for note in certificate.notes)


class Paused(CodiReasoner):
    """Feeds learned vectors, the same for every problem, in the place of thoughts."""

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        pause = self.embed(torch.tensor([self.checkpoint.pad_id])).to(hidden)
        return pause.expand_as(hidden)


def test_shared_vectors_carry_nothing_of_the_problem_which_is_not_a_dead_slot():
    certificate = verify(
        Paused(loaded("codi-gpt2", "float64").checkpoint), problems("codi-gpt2"), level="core", answer_tokens=2
    )
    assert certificate.passed, certificate.failed
    assert certificate.shared_slots == tuple(range(6))
    assert certificate.dead_slots == ()
    note = next(note for note in certificate.notes if "carries nothing of the problem" in note)
    assert "a swap is the identity. Edits with other content do reach the answer" in note
    check = next(c for c in certificate.checks if c.name == "donor swaps reach the logits")
    assert "there is nothing to swap" in check.detail


def test_a_bound_too_wide_to_fail_is_itself_a_failure(monkeypatch):
    monkeypatch.setattr(bench_module, "ROUNDINGS", 1e18)
    certificate = verify(loaded("codi-gpt2", "float64"), problems("codi-gpt2"), level="core", answer_tokens=2)
    assert "the checks can fail" in certificate.failed


@pytest.mark.parametrize(("tokens", "passed"), [(1, False), (2, True)])
def test_a_score_of_many_tokens_may_be_wrong_by_as_many_roundings(tokens, passed):
    due = dict.fromkeys(records_module.SCORES, -100.0)
    found = Measured(torch.zeros(1), torch.zeros(1), torch.zeros(1), due, terms=tokens)
    one = SimpleNamespace(arm=SimpleNamespace(label="swap CT0"))
    told = due | {"logp_gold": -100.0015}  # rounding may do 0.001 to the log-probability of one token
    records = SimpleNamespace(all=[one], told=[told], measured=[found], rounding=lambda of: [0.001])
    check = records_module.scores(cast(records_module.Records, records))
    assert check.passed is passed
    assert check.figure == pytest.approx(1.5 / tokens)


def test_every_check_is_explained_once_and_the_core_is_part_of_the_whole():
    certificate = certificate_of("codi-gpt2", "float32")
    names = [check.name for check in certificate.checks]
    assert len(set(names)) == len(names)
    assert set(STATEMENTS) - set(names) == {"fingerprint", "official cases"}  # where the user has them
    core = verify(loaded("codi-gpt2", "float32"), problems("codi-gpt2"), level="core", answer_tokens=2)
    assert [c.name for c in core.checks] == [n for n in STATEMENTS if STATEMENTS[n].core]
    assert (core.kind, certificate.kind) == ("core", "full")


def test_an_undefined_figure_fails_and_is_null_in_json():
    check = at_most("null edit", math.nan, 1.0)
    assert not check.passed
    assert not at_least("null edit", math.nan, 1.0).passed
    written = Certificate("m", "official", "float32", "core", (check,)).to_json()
    assert written["checks"][0]["figure"] is None and written["passed"] is False


def test_one_problem_no_thought_or_another_level_is_a_clear_error():
    with pytest.raises(PlanError, match=r"1 problems; expected at least 2"):
        verify(loaded("codi-gpt2", "float64"), problems("codi-gpt2")[:1])
    with pytest.raises(PlanError, match=r"unknown level of certification; got 'most'; expected core, full"):
        verify(loaded("codi-gpt2", "float64"), problems("codi-gpt2"), level="most")
