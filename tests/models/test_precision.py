"""float32 runs multiply in float32, whatever the process was told; what it was told is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from tests.engine.tiny import questions, tiny

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.engine.collect import collect_thoughts
from thoughtgraft.engine.evaluate import explicit_correct
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.run import run
from thoughtgraft.engine.states import states_of
from thoughtgraft.engine.verify.suite import verify
from thoughtgraft.models.precision import ieee_products
from thoughtgraft.readouts.readout import decode_thoughts
from thoughtgraft.tasks.problem import Problem, ProblemSet

NEW = hasattr(torch._C, "_get_fp32_precision_getter")
PROBLEMS = ProblemSet(tuple(Problem(str(i), q, None) for i, q in enumerate(questions("codi-llama")[:3])))


def state() -> list[Any]:
    """Every switch, as far as PyTorch tells it; asking for some is an error while old and new switches are mixed."""
    get = torch._C._get_fp32_precision_getter if NEW else lambda *place: None
    places = [("generic", "all"), ("cuda", "all"), ("cuda", "matmul"), ("mkldnn", "all"), ("mkldnn", "matmul")]
    found: list[Any] = [get(*place) for place in places]
    for ask in (torch.get_float32_matmul_precision, lambda: torch.backends.cuda.matmul.allow_tf32):
        try:
            found.append(ask())
        except RuntimeError:
            found.append("mixed")
    matmul = torch.backends.cuda.matmul
    return [*found, matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_accumulation]


def told(precision: str) -> Callable[[], None]:
    return lambda: torch.set_float32_matmul_precision(precision)


def wide(where: Any, value: str) -> Callable[[], None]:
    return lambda: setattr(where, "fp32_precision", value)


def half_sums() -> None:
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_accumulation = True


SWITCHES = {
    "nothing": lambda: None,
    "medium": told("medium"),
    "high": told("high"),
    "highest": told("highest"),
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "half sums": half_sums,
}
if NEW:
    SWITCHES |= {
        "everything in bfloat16": wide(torch.backends, "bf16"),
        "everything in TF32": wide(torch.backends, "tf32"),
        "oneDNN in bfloat16": wide(torch.backends.mkldnn.matmul, "bf16"),
    }


@contextmanager
def restored() -> Iterator[None]:
    """Put the process's switches back, whatever a test told it."""
    matmul = torch.backends.cuda.matmul
    try:
        yield
    finally:
        if NEW:
            torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision("highest")
        if NEW:
            for place in (("cuda", "matmul"), ("mkldnn", "matmul")):
                torch._C._set_fp32_precision_setter(*place, "none")
        matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_accumulation = True, False


@pytest.mark.parametrize("switch", SWITCHES)
def test_switches_are_put_to_ieee_and_back(switch: str) -> None:
    with restored():
        SWITCHES[switch]()
        before = state()
        with pytest.raises(ZeroDivisionError), ieee_products(), ieee_products():
            if NEW:
                assert {
                    torch._C._get_fp32_precision_getter(*p) for p in (("cuda", "matmul"), ("mkldnn", "matmul"))
                } == {"ieee"}
            assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
            assert not torch.backends.cuda.matmul.allow_fp16_accumulation
            raise ZeroDivisionError
        assert state() == before


def test_what_followed_a_wider_switch_follows_it_on() -> None:
    if not NEW:
        pytest.skip("this PyTorch has one switch for all")
    with restored():
        torch.backends.fp32_precision = "bf16"  # type: ignore[attr-defined]
        with ieee_products():
            pass
        torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
        assert torch._C._get_fp32_precision_getter("mkldnn", "matmul") == "none"


def everything(model: Any) -> list[Any]:
    """All that the engine makes of a model, as numbers that are compared bit for bit."""
    prompt = model.prompt(PROBLEMS[0].question)
    thoughts = collect_thoughts(model, PROBLEMS, progress=False)
    records = run(model, PROBLEMS, Plan((Arm("baseline"), Arm("swap", (1,))), n_donors=1), progress=False)
    reference = reference_run(model, prompt, max_new_tokens=2)
    checks = verify(model, PROBLEMS, level="core", answer_tokens=2).checks
    return [
        thoughts.fed.tolist(),
        records.drop(columns=["token_ids", "slots"]).to_csv(),
        [reference.fed.tolist(), reference.first_logits.tolist()],
        [part.tolist() for part in states_of(model, [prompt], [0, 1])],
        decode_thoughts(model, thoughts).to_csv(),
        explicit_correct(model, PROBLEMS, progress=False),
        [check.figure for check in checks],
    ]


@pytest.mark.parametrize("switch", ["medium", "autocast", "everything in bfloat16"])
def test_no_switch_of_the_process_changes_a_float32_model(switch: str) -> None:
    """On a CPU with bfloat16 instructions `medium` alone changes these networks' logits in the third digit."""
    if switch not in ("autocast", *SWITCHES):
        pytest.skip("this PyTorch has no such switch")
    model = tiny("codi-llama", "float32", max_new_tokens=3)
    expected, identity = everything(model), model.identity
    around: AbstractContextManager[Any] = (
        torch.autocast("cpu", torch.bfloat16) if switch == "autocast" else nullcontext()
    )
    with restored(), around:
        SWITCHES.get(switch, SWITCHES["nothing"])()
        assert everything(model) == expected
    assert identity["products"] == "ieee" and model.identity == identity
