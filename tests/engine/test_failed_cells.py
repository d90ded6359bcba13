"""Failed cells: an edit that fails on a row costs that row, is said in its record, and is never a wrong answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tests.engine.tiny import loaded, questions, tiny
from torch import Tensor

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.plan import Plan
from thoughtgraft.edits.site import Resid
from thoughtgraft.engine import cells as cells_module
from thoughtgraft.engine.run import run
from thoughtgraft.errors import ModelError, PlanError
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.status import read_status
from thoughtgraft.records.store import RunStore
from thoughtgraft.tasks.numbers import extract_answer
from thoughtgraft.tasks.problem import Problem, ProblemSet

TOKENS, HOSTS, DONORS, VICTIM = 6, 6, 3, "2"
OUTCOME = [
    "text", "token_ids", "stop_reason", "n_tokens", "pred", "valid", "correct", "changed", "adopted", "logp_gold",
    "dlogp_gold", "logp_donor", "kl", "fed_norm", "donor_cos",
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return loaded("codi-llama", "float64")


@pytest.fixture(scope="module")
def problems():
    asked = questions("codi-llama")
    return ProblemSet(tuple(Problem(str(i), asked[i], extract_answer(str(4 * i + 3))) for i in range(HOSTS)))


class Planted:
    """An edit that halves, and does something else to the rows of one host, or of one donor, at the last slot asked."""

    def __init__(self, kind: str, *, of: str = "host", slot: int | None = None, name: str = "") -> None:
        self.kind, self.of, self.slot = kind, of, slot
        self.identity = f"planted {kind} {of} {slot} {name}"

    def __call__(self, live: Tensor, context: EditContext) -> Tensor:
        if self.kind == "halves":
            return live / 2
        ids = context.host_ids if self.of == "host" else context.donor_ids
        hit = torch.tensor([name.split(".")[0] == VICTIM for name in ids])
        if not hit.any() or self.slot not in (None, context.slot):
            return live / 2
        if self.kind == "raises":
            raise ValueError("this host has no such thing\nand more")
        if self.kind == "gives nothing":
            return None
        if self.kind == "drops a row":
            return live[~hit]
        edited = live / 2
        edited[hit, -1] = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}.get(self.kind, 0.5)
        if self.kind == "too large":
            edited[hit] = torch.finfo(live.dtype).max
        return edited


@pytest.fixture(scope="module")
def halved(model, problems):
    """By site, the run of an edit that halves and fails nowhere."""
    return {site: go(model, problems, plan_of(Planted("halves"), site=site)) for site in (None, Resid(1))}


def plan_of(op, *, slots=(1, 3), site=None, repeats=True, arms=(), identity=None) -> Plan:
    own = Arm("own", slots, op=op, repeats=repeats, site=site, identity=identity)
    return Plan((Arm("baseline"), Arm("swap", (2,)), own, *arms), n_donors=DONORS, seed=5)


def go(model, problems, plan, out=None, **options) -> pd.DataFrame:
    return run(model, problems, plan, out, max_new_tokens=TOKENS, progress=False, **options)


def check_record(row) -> None:
    assert all(isinstance(row[name], list) or pd.isna(row[name]) for name in OUTCOME), row
    assert row["token_ids"] is None or pd.isna(row["token_ids"])
    assert pd.notna(row["base_correct"]) and pd.notna(row["gold"]), "what the cell is stays known"


CASES = {
    "raises": ({"kind": "raises"}, "the edit failed at CT1: ValueError: this host has no such thing"),
    "nan": ({"kind": "nan"}, "the edit gave NaN at CT1"),
    "inf": ({"kind": "inf"}, "the edit gave an infinite vector at CT1"),
    "-inf": ({"kind": "-inf"}, "the edit gave an infinite vector at CT1"),
    "too large": ({"kind": "too large"}, "the edit gave an infinite vector at CT1"),
    "gives nothing": ({"kind": "gives nothing"}, "the edit failed at CT1: PlanError: an edit gave no vectors"),
    "drops a row": ({"kind": "drops a row"}, "the edit failed at CT1: PlanError: an edit changed the shape"),
    "raises for a donor": ({"kind": "raises", "of": "donor"}, "the edit failed at CT1: ValueError"),
    "nan for a donor": ({"kind": "nan", "of": "donor"}, "the edit gave NaN at CT1"),
    "nan at the second slot only": ({"kind": "nan", "slot": 3}, "the edit gave NaN at CT3"),
    "raises at the second slot only": ({"kind": "raises", "slot": 3}, "the edit failed at CT3: ValueError"),
}


@pytest.mark.parametrize("site", [None, Resid(1)], ids=["fed", "resid"])
@pytest.mark.parametrize("case", CASES)
def test_a_failing_row_is_a_record_and_the_others_are_the_same_to_the_last_bit(model, problems, halved, case, site):
    options, text = CASES[case]
    found = go(model, problems, plan_of(Planted(**options), site=site))
    sound = halved[site]
    of = "donor_id" if options.get("of") == "donor" else "problem_id"
    hit = (found["method"] == "own") & (found[of].astype(object) == VICTIM)
    assert set(found["site_layer"][hit].dropna()) == (set() if site is None else {1})
    assert 0 < hit.sum() < HOSTS * DONORS
    assert found["error"].notna().equals(hit)
    for row in found[hit].to_dict("records"):
        where = text if site is None else text.replace("CT1", "CT1 after L1").replace("CT3", "CT3 after L1")
        assert row["error"].startswith(where), row["error"]
        assert "\n" not in row["error"] and len(row["error"]) <= 300
        check_record(row)
    same = [name for name in found if name not in ("cell", "run_id", "unit")]
    # An edit that is said to halve does so; the planted one's other rows are halved too.
    pd.testing.assert_frame_equal(found[~hit][same], sound[~hit][same], check_exact=True)
    assert sound["error"].isna().all() and sound["correct"].notna().all()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_what_fails_does_not_depend_on_the_packing(model, problems, batch_size):
    plan = plan_of(Planted("raises"), arms=(Arm("other", (0, 4), op=Planted("nan", slot=4)),))
    whole, parts = go(model, problems, plan), go(model, problems, plan, batch_size=batch_size)
    for name in ("cell", "error", "pred", "correct"):
        assert whole[name].astype(str).tolist() == parts[name].astype(str).tolist()
    assert whole["error"].notna().sum() == DONORS + 1


def test_the_first_thing_that_went_wrong_is_said(model, problems):
    class Twice(Planted):
        def __call__(self, live, context):
            if context.slot == 1:
                return super().__call__(live, context)
            return Planted("raises")(live, context)

    found = go(model, problems, plan_of(Twice("nan", slot=1)))
    assert set(found["error"].dropna()) == {"the edit gave NaN at CT1"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_edit_whose_numbers_the_model_cannot_hold_has_failed(problems, dtype):
    model = tiny("codi-llama", dtype, max_new_tokens=TOKENS)

    def wide(live: Tensor, context: EditContext) -> Tensor:
        return live.double() + 1e150

    error = go(model, problems, Plan((Arm("wide", (5,), op=wide),)))["error"]
    if dtype == "float32":
        assert set(error) == {"the edit gave an infinite vector at CT5"}
    else:
        assert error.isna().all()


class Overflows(LatentReasoner):
    """A model whose logits overflow wherever it would say one certain token."""

    token: int | None = None
    into = torch.nan

    def unembed(self, hidden: Tensor) -> Tensor:
        logits = super().unembed(hidden)
        return (
            logits
            if self.token is None
            else logits.masked_fill(logits.argmax(-1, keepdim=True) == self.token, self.into)
        )


def test_a_clean_answer_that_is_not_finite_is_the_models_fault_and_no_run(problems):
    model = tiny("codi-llama", max_new_tokens=TOKENS, mixins=(Overflows,))
    said = go(model, problems, Plan((Arm("baseline"),)))["token_ids"]
    model.token = int(said[1][2])
    broken = sum(model.token in ids for ids in said)
    with pytest.raises(ModelError, match=f"the model's logits are not finite numbers; .* in {broken} of {HOSTS}"):
        go(model, problems, Plan((Arm("baseline"),)))


@pytest.mark.parametrize("into", [torch.nan, torch.inf])
def test_a_finite_edit_after_which_the_model_overflows_has_failed_too(problems, into):
    model = tiny("codi-llama", max_new_tokens=TOKENS, mixins=(Overflows,))
    plan = Plan((Arm("baseline"), *(Arm("zero", (k,)) for k in range(6))))
    sound = go(model, problems, plan)
    clean = {i for ids in sound[sound["method"] == "baseline"]["token_ids"] for i in ids}
    first = Counter(i for ids in sound["token_ids"] for i in ids[:1] if i not in clean)
    later = Counter(i for ids in sound["token_ids"] for i in ids[1:] if i not in {*clean, *first})
    for token in (first.most_common(1)[0][0], later.most_common(1)[0][0]):
        model.token, model.into = token, into
        found = go(model, problems, plan)
        failed = found["error"].notna()
        says = sound["token_ids"].map(lambda ids, token=token: token in ids)
        assert (
            says.any() and not failed.all() and failed[says].all() and not failed[found["method"] == "baseline"].any()
        )
        assert set(found["error"].dropna()) == {"the model's logits at the answer are not finite numbers"}
        for row in found[failed].to_dict("records"):
            check_record(row)
        same = ["cell", "text", "pred", "correct", "logp_gold", "kl"]
        pd.testing.assert_frame_equal(found[~failed][same], sound[~failed][same], check_exact=True)


def test_the_mean_of_no_others_is_no_answer(model, problems, tmp_path):
    one = ProblemSet(problems.problems[:1])

    def toward_the_mean(live: Tensor, context: EditContext) -> Tensor:
        return (live + context.mean()) / 2

    arms = [Arm("baseline"), Arm("mean", (0,)), Arm("mean", (1, 2)), Arm("zero", (3,))]
    arms += [Arm("toward", (1,), op=toward_the_mean, identity="toward the mean")]
    for out in (None, tmp_path / "run"):
        found = go(model, one, Plan(tuple(arms)), out).set_index("arm")
        failed = found[found["error"].notna()]
        assert list(failed.index) == ["mean CT0", "mean CT1-CT2", "toward CT1"]
        assert all("there is no other problem to take a mean of" in text for text in failed["error"])
        for row in failed.to_dict("records"):
            check_record(row)
        assert found.loc[["baseline", "zero CT3"], "correct"].notna().all()


def test_kept_logits_of_failed_cells_are_not_kept(model, problems):
    found = go(model, problems, plan_of(Planted("nan")), keep_logits=True)
    assert found["first_logits"].isna().equals(found["error"].notna())


def test_a_continued_run_keeps_its_failed_cells_and_does_not_run_them_again(model, problems, tmp_path, monkeypatch):
    plan = plan_of(Planted("raises"), arms=(Arm("mean", (0,)),))
    whole = go(model, problems, plan)
    packs = []

    def stop() -> bool:
        packs.append(1)
        return len(packs) > 5

    with pytest.raises(KeyboardInterrupt):
        go(model, problems, plan, tmp_path, batch_size=8, stop=stop)
    store = RunStore.open(tmp_path)
    before, kept = len(store.frame()), store.errors
    assert kept and before < len(whole), "the failed cells are among the first: the test needs both"
    asked: list[str] = []
    honest = cells_module.rollout
    monkeypatch.setattr(
        cells_module,
        "rollout",
        lambda m, p, rows, *a, **k: (asked.extend(row.key for row in rows), honest(m, p, rows, *a, **k))[1],
    )
    found = go(model, problems, plan, tmp_path, batch_size=8)
    assert len(asked) == len(whole) - before
    assert not {row["cell"] for row in kept} & set(asked)
    for name in ("cell", "error", "pred", "correct", "adopted"):
        assert found[name].astype(str).tolist() == whole[name].astype(str).tolist()
    assert len(store.errors) == DONORS
    status = read_status(tmp_path)
    assert (status.state, status.done, status.errors) == ("finished", len(whole), DONORS)
    own = next(line for line in status.arms if line.arm.method == "own")
    assert (own.errors, own.done) == (DONORS, HOSTS * DONORS)
    sound = found[(found["method"] == "own") & found["error"].isna()]
    assert own.accuracy == pytest.approx(sound["correct"].astype(float).mean()), "failed cells are in no denominator"


def test_a_mistake_that_concerns_the_whole_arm_is_said_before_anything_is_stored(model, problems, tmp_path):
    def wrong(live: Tensor, context: EditContext) -> Tensor:
        return live[:, :3]

    def broken(live: Tensor, context: EditContext) -> Tensor:
        raise KeyError("layer 12")

    def of_a_donor(live: Tensor, context: EditContext) -> Tensor:
        return context.donor()

    def second(live: Tensor, context: EditContext) -> Tensor:
        return live if context.slot == 1 else broken(live, context)

    for op, text in (
        (wrong, "an edit changed the shape"),
        (lambda live, context: None, "an edit gave no vectors; got None"),
        (lambda live, context: torch.complex(live, live), "an edit gave no vectors"),
        (broken, "KeyError: 'layer 12' (at CT1, 6 cells)"),
        (second, "KeyError: 'layer 12' (at CT3, 6 cells)"),
        (of_a_donor, "the cell has no donor"),
    ):
        for site in (None, Resid(0)):
            with pytest.raises(PlanError) as caught:
                go(model, problems, plan_of(op, repeats=False, site=site, identity="wrong"), tmp_path / "run")
            assert "fails on every cell that it was tried on" in str(caught.value)
            assert text in str(caught.value) and "mend the edit; nothing was run" in str(caught.value)
            assert caught.value.__cause__ is not None, "the edit's own line is in the traceback"
            assert not (tmp_path / "run").exists()


class Odd(Exception):
    """Says what no file can hold, on a later line, and looks like another library's error."""

    def errors(self) -> list[int]:
        return [1]

    def __str__(self) -> str:
        return "\n\n  no file \udcff\nhere"


@pytest.mark.parametrize(
    ("error", "said"),
    [(Odd(), "Odd: no file \\udcff"), (ValueError(), "ValueError"), (RuntimeError("x" * 999), "RuntimeError: xxx")],
)
def test_whatever_an_edit_says_can_be_stored_and_read(model, problems, tmp_path, error, said):
    def odd(live: Tensor, context: EditContext) -> Tensor:
        if (context.host(slot=0)[:, 0] > 0).any():
            raise error
        return live

    found = go(model, problems, Plan((Arm("odd", (2,), op=odd, identity="odd"),)), tmp_path / "run")
    [text] = set(found["error"].dropna())
    assert text.startswith(f"the edit failed at CT2: {said}") and len(text) <= 300
    assert RunStore.open(tmp_path / "run").errors[0]["error"] == text


def test_vectors_of_other_types_are_cast_and_the_callers_are_not_changed(model, problems):
    """Whole numbers, half precision, and an edit that writes into what it was given."""

    def in_place(live: Tensor, context: EditContext) -> Tensor:
        context.host().zero_()
        return live.fill_(1)

    def whole(live: Tensor, context: EditContext) -> Tensor:
        return torch.ones_like(live, dtype=torch.int32)

    def half(live: Tensor, context: EditContext) -> Tensor:
        return torch.ones_like(live, dtype=torch.float16)

    arms = tuple(Arm(op.__name__, (2,), op=op) for op in (in_place, whole, half))
    found = go(model, problems, Plan((*arms, Arm("self", (3,)))))
    assert found["error"].isna().all() and not found[found["method"] == "self"]["changed"].any()
    answers = [found[found["method"] == arm.change.name]["text"].tolist() for arm in arms]
    assert answers[0] == answers[1] == answers[2]


def test_an_edit_that_cannot_take_many_rows_at_once_is_given_few(model, problems):
    calls: list[int] = []

    def at_most_two(live: Tensor, context: EditContext) -> Tensor:
        calls.append(len(live))
        if len(live) > 2:
            raise RuntimeError("two at most")
        return live / 2

    found = go(model, problems, plan_of(at_most_two))
    wanted = go(model, problems, plan_of(lambda live, context: live / 2))
    assert found["error"].isna().all() and max(calls) > 2
    assert found["token_ids"].map(tuple).tolist() == wanted["token_ids"].map(tuple).tolist()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk"), MemoryError(), FileNotFoundError("x")])
def test_interrupts_and_the_machines_own_failures_are_not_swallowed(model, problems, error):
    class Late(Planted):
        armed = False

        def __call__(self, live, context):
            if self.armed and context.slot == 3:
                raise error
            return super().__call__(live, context)

    op = Late("halves")
    plan = plan_of(op)
    go(model, problems, plan)
    op.armed = True
    if isinstance(error, MemoryError):
        # Out of memory halves the pack down to a single row, and is then said.
        with pytest.raises(Exception, match="does not fit in memory"):
            cells = plan.cells(problems, model.identity)
            list(work(model, problems).run(model, cells))
    else:
        with pytest.raises(error if isinstance(error, type) else type(error)):
            go(model, problems, plan)


def work(model, problems):
    from thoughtgraft.engine.collect import collect_thoughts, encode

    thoughts = collect_thoughts(model, problems, max_new_tokens=TOKENS, progress=False)
    return cells_module.Work(problems, encode(model, problems), thoughts, "r", 0, "auto", TOKENS)


def test_every_row_of_a_grid_keeps_its_own_failure(model, problems):
    """Many rows, more than one pack's worth of hosts, several arms that fail in different places."""
    many = ProblemSet(tuple(replace(p, id=f"{p.id}.{i}", question=p.question) for i in range(3) for p in problems))
    arms = tuple(Arm(f"own{k}", (k,), op=Planted("nan", name=str(k)), repeats=True) for k in range(6))
    found = go(model, many, Plan(arms, n_donors=DONORS, seed=1))
    for k in range(6):
        part = found[found["method"] == f"own{k}"]
        hit = part["problem_id"].str.startswith(f"{VICTIM}.")
        assert part["error"].notna().equals(hit) and set(part["error"].dropna()) == {f"the edit gave NaN at CT{k}"}


def fate(key: str, slot: int, name: str) -> str:
    """What happens to a cell's edit at a slot: one in eight raises, one in eight gives NaN, one in eight infinity."""
    draw = hashlib.sha256(f"{name} {key} {slot}".encode()).digest()[0] % 8
    return ("raises", "nan", "inf")[draw] if draw < 3 else "sound"


def by_key(name: str, planted: bool):
    def op(live: Tensor, context: EditContext) -> Tensor:
        fates = [fate(key, context.slot, name) if planted else "sound" for key in context.keys]
        if "raises" in fates:
            raise ArithmeticError("planted")
        value = {"sound": 0.0, "nan": torch.nan, "inf": torch.inf}
        return live / 2 + torch.tensor([value[f] for f in fates], dtype=live.dtype)[:, None]

    return op


@pytest.mark.parametrize("batch_size", ["auto", 5])
def test_exactly_the_cells_fail_that_were_to_and_at_their_first_fault(model, problems, batch_size):
    def plan(planted: bool) -> Plan:
        arms = [Arm("baseline"), Arm("swap", (4,))]
        for i, slots in enumerate([(0,), (1, 3), (2, 3, 4, 5)]):
            for down in ("recompute", "freeze_input", "freeze_kv", "at a site"):
                name, site = f"own{i}{down}".replace(" ", ""), Resid(1) if down == "at a site" else None
                rule = "recompute" if site else down
                arms.append(Arm(name, slots, rule, op=by_key(name, planted), repeats=True, site=site))
        return Plan(tuple(arms), n_donors=2, seed=9)

    found = go(model, problems, plan(True), batch_size=batch_size)
    sound = go(model, problems, plan(False), batch_size=batch_size)
    assert sound["error"].isna().all() and (sound["cell"] == found["cell"]).all()
    words = {"raises": "the edit failed", "nan": "the edit gave NaN", "inf": "the edit gave an infinite vector"}
    hit = []
    for row in found.to_dict("records"):
        fates = [(k, fate(row["cell"], k, row["method"].split(" ")[0])) for k in row["slots"]]
        first = next(((k, f) for k, f in fates if f != "sound"), None) if row["method"].startswith("own") else None
        hit.append(first is not None)
        assert pd.isna(row["error"]) if first is None else row["error"].startswith(f"{words[first[1]]} at CT{first[0]}")
    hit = pd.Series(hit)
    assert 40 < hit.sum() < 110
    same = [name for name in found if name not in ("run_id", "unit", "plan_hash")]
    pd.testing.assert_frame_equal(found[~hit][same], sound[~hit][same], check_exact=True)
