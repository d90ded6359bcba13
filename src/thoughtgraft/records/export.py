"""Records as one file with a data card, for people who do not have this package."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from thoughtgraft.arguments import answers_for_calls, choice, closest, need, path_of, shown
from thoughtgraft.edits.edit import EDITS
from thoughtgraft.errors import RunError, first_line
from thoughtgraft.files import make_folder, write_atomic
from thoughtgraft.records.schema import RECORD_SCHEMA, SCHEMA_VERSION
from thoughtgraft.records.shards import list_text, table_to_frame, write_parquet
from thoughtgraft.records.spec import RECORDS_FOLDER, RunSpec
from thoughtgraft.records.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

ExportFormat = Literal["csv", "parquet", "jsonl"]
_ROWS_AT_ONCE = 4_096


WHERE = 'method == "swap" and slots == "[3]"'
"""A condition, as examples show it."""


class Exported(NamedTuple):
    """What `export_records` wrote: the files, and how many records are in the first."""

    files: list[Path]
    rows: int


@answers_for_calls(RunError)
def load_records(path: str | Path, where: str | None = None) -> pd.DataFrame:
    """All records of a run, one row per generation.

    Args:
        path: The run folder; it may be running.
        where: Keep only the rows for which this holds; see `rows_where`.

    Returns:
        Column types as `table_to_frame` says: undefined is `<NA>` or NaN, `slots` are tuples.

    Raises:
        RunError: The folder is not a run's or keeps no records, a shard is damaged, or the condition cannot be used.
    """
    return table_to_frame(rows_where(_records_of(RunStore.open(path)), where))


@answers_for_calls(RunError)
def export_records(
    path: str | Path, out: str | Path, format: ExportFormat = "csv", where: str | None = None
) -> Exported:
    """Write a run's records to one file, atomically.

    Lists are JSON text in CSV (`[0,3]`) and lists elsewhere; undefined is an empty field in CSV, null elsewhere.

    Args:
        path: The run folder.
        out: The file to write; an earlier export there is replaced.
        format: `csv`, `parquet` or `jsonl`. Beside a parquet file a dataset card is written: `README.md`, or
            `NAME.README.md` where somebody else's README.md is already there.
        where: Keep only the rows for which this holds; see `rows_where`.

    Raises:
        RunError: The run cannot be read, the format is unknown, or the file cannot be written.
    """
    out = path_of(out, "the file to write")
    choice(format, "export format", ("csv", "parquet", "jsonl"), RunError)
    if out.is_dir():
        raise RunError(f"{out} is a folder", expected="a file to write", fix=f"for example {out / f'records.{format}'}")
    store = RunStore.open(path)
    if out.resolve().parent == (store.path / RECORDS_FOLDER).resolve():
        raise RunError(f"{out} lies among the run's own shards", fix="write the export elsewhere")
    table = rows_where(_records_of(store), where)
    make_folder(out.parent)
    if format == "csv":
        write_atomic(out, _csv(table))
    elif format == "jsonl":
        write_atomic(out, _jsonl(table))
    else:
        write_parquet(out, table)
        card = out.parent / "README.md"
        if card.exists() and CARD_MARK not in card.read_text(encoding="utf-8", errors="replace"):
            card = out.parent / f"{out.stem}.README.md"
        write_atomic(card, dataset_card(store.spec, out.name, table.num_rows, where).encode())
        return Exported([out, card], table.num_rows)
    return Exported([out], table.num_rows)


def _records_of(store: RunStore) -> pa.Table:
    store.require_records()
    return store.table()


# What a condition may hold: comparisons of columns with literals, joined. No name is called but these, and nothing is
# looked up in an object: pandas would run whatever a condition names.
_PARTS = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Constant, ast.List, ast.Tuple,
    ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.expr_context,
)  # fmt: skip
_CALLS = {"isna", "notna"}
_TEXT_CALLS = {"contains", "startswith", "endswith", "len"}


def rows_where(table: pa.Table, where: str | None) -> pa.Table:
    """The records for which a condition holds, in pandas' language of `DataFrame.query`.

    Columns stand as they do in the CSV export. Slots are text there, `slots == "[3]"`, and so are answers,
    `pred == "42"`. A comparison with an undefined value keeps no row.

    A condition may compare, use `in`, `and`, `or` and `not`, and calculate. It may call `isna`, `notna`,
    `str.contains`, `str.startswith`, `str.endswith` and `str.len` on a column. Nothing else is ever called.

    Args:
        table: Records.
        where: The condition; None keeps all.

    Raises:
        RunError: The condition does not parse, names an unknown column, or is more than a condition.
    """
    if where is None:
        return table
    import pandas as pd

    need(where, str, "the condition", RunError, expected="text", fix=f"for example: {WHERE}")
    names = _names(where, table.column_names)
    frame = table_to_frame(table.select(names))
    for name in (name for name in names if pa.types.is_list(table.schema.field(name).type)):
        frame[name] = pd.Series(pa.chunked_array(_bracketed(table[name]), type=pa.string()).to_pylist(), dtype="str")
    try:
        kept = frame.eval(where.strip(), engine="python")
    except Exception as error:  # whatever pandas makes of it: it is the same news to the user
        raise _unusable(where, first_line(error)) from None
    if not isinstance(kept, pd.Series) or not pd.api.types.is_bool_dtype(kept.dtype):
        raise _unusable(where, "no true or false for each row")
    return table.filter(pa.array(kept.fillna(False).to_numpy(bool)))


def _names(where: str, columns: list[str]) -> list[str]:
    """The columns that a condition names, in order."""
    try:
        nodes = list(ast.walk(ast.parse(where.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _unusable(where, getattr(error, "msg", None) or first_line(error)) from None
    if any(isinstance(node, ast.Is | ast.IsNot) for node in nodes):
        raise _unusable(where, "is", fix="error.isna() keeps the records without an error, error.notna() the others")
    allowed = {part for node in nodes for part in _called(node)}
    if odd := next((node for node in nodes if not isinstance(node, _PARTS) and node not in allowed), None):
        raise _unusable(where, ast.unparse(odd), expected="columns, literals, and the methods that --help names")
    names = list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name)))
    if unknown := [name for name in names if name not in columns]:
        close = closest(unknown[0], columns)
        fix = close and f"did you mean {close!r}?"
        raise _unusable(where, f"the unknown column {unknown[0]!r}", expected=", ".join(columns), fix=fix)
    return names


def _called(node: ast.AST) -> list[ast.AST]:
    """The nodes of an allowed method call on a column, without its arguments; empty for anything else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords):
        return []
    owner, name = node.func.value, node.func.attr
    if isinstance(owner, ast.Attribute) and owner.attr == "str" and name in _TEXT_CALLS:
        return [node, node.func, owner] if isinstance(owner.value, ast.Name) else []
    return [node, node.func] if isinstance(owner, ast.Name) and name in _CALLS else []


def _unusable(where: str, got: str, expected: str | None = None, fix: str | None = None) -> RunError:
    what = f"the condition {shown(where)} cannot be used"
    return RunError(what, got=got, expected=expected, fix=fix or f"for example: {WHERE}")


def _csv(table: pa.Table) -> memoryview:
    import pyarrow.csv as pacsv

    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = pa.chunked_array(_bracketed(table[field.name]), type=pa.string())
            table = table.set_column(index, field.name, texts)
    buffer = pa.BufferOutputStream()
    pacsv.write_csv(table, buffer)
    return memoryview(buffer.getvalue())


def _bracketed(column: pa.ChunkedArray) -> list[pa.Array]:
    import pyarrow.compute as pc

    return [pc.binary_join_element_wise("[", chunk, "]", "") for chunk in list_text(column).chunks]


def _jsonl(table: pa.Table) -> memoryview:
    lines = io.BytesIO()
    # As Python objects rows take many times their space on disk: a few at a time.
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            lines.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return lines.getbuffer()


# Names the file as ours, so that nobody else's README is overwritten.
CARD_MARK = "<!-- thoughtgraft dataset card -->"

COLUMN_MEANINGS = {
    "run_id": "hash of what makes the run this run",
    "unit": "the work unit: cells that ran together and were stored as one",
    "cell": "stable key of this generation: hash of what defines it",
    "arm": "the condition's name",
    "method": f"{', '.join(EDITS)}, or the name of an edit of one's own",
    "slots": "edited slots k, 0-based: `fed[k]`",
    "site_kind": "where the edit acts: fed = what the slots are fed, resid = a residual stream; null = no edit",
    "site_layer": "the block after which the residual stream is edited, 0-based; null = not a residual stream",
    "downstream": "what happens to unedited slots after the first edited one",
    "protocol": "the complete rule of inference",
    "num_latents": "continuous thoughts K",
    "model_edit": "what hooks and edits of the loaded model were called; null = it was as it was loaded",
    "problem_id": "the host problem",
    "split": "the split the host belongs to",
    "n_steps": "arithmetic steps of the host; null = unknown",
    "operation": "addition, multiplication, mixed or unknown",
    "gold": "exact gold answer",
    "base_pred": "the host's answer unedited",
    "base_correct": "whether that is right",
    "donor_id": "the problem that the thought was taken from",
    "donor_stratum": "how donors were drawn (a label)",
    "donor_pred": "the donor's own answer, unedited",
    "donor_correct": "whether that is right",
    "text": "the generated text",
    "token_ids": "the generated tokens",
    "stop_reason": "why generation ended",
    "n_tokens": "generated tokens, count",
    "pred": "the parsed answer, an exact number; null = nothing parsed",
    "valid": "whether a number parsed",
    "correct": "whether pred equals gold",
    "changed": "whether pred differs from base_pred",
    "adopted": "whether pred equals donor_pred, over eligible pairs; null = not eligible",
    "logp_gold": "log-probability of the gold answer (natural log)",
    "dlogp_gold": "logp_gold, edited minus clean",
    "logp_donor": "log-probability of the donor's answer (natural log)",
    "kl": "KL(clean || edited) at the number's first token, nats",
    "fed_norm": "norm of the vector that was fed",
    "donor_cos": "cosine of the host's and the donor's vector",
    "pad": "left pads before the question",
    "seed": "seed of a random edit; null = not random",
    "error": "why the cell has no outcome (its other results are null); null = it did not fail",
}


def dataset_card(spec: RunSpec, file: str, rows: int, where: str | None) -> str:
    """The card's text (Markdown).

    Args:
        spec: The run.
        file: Name of the exported file.
        rows: Records in it.
        where: The condition they were selected by, if any.
    """
    facts = {
        "study": spec.study,
        "model": f"{spec.model} (identity {spec.model_hash})",
        "protocol": spec.protocol,
        "continuous thoughts (K)": spec.num_latents,
        "longest answer": "not recorded" if spec.max_new_tokens is None else f"{spec.max_new_tokens} tokens",
        "problems": f"{spec.problems} (content {spec.problem_hash})",
        "plan": f"{spec.plan_hash}: {spec.n_hosts} hosts, {spec.n_donors} donors each, {spec.n_cells} cells",
        "seed": spec.seed,
        "dtype, device": f"{spec.dtype}, {spec.device}",
        "run id": spec.run_id,
        "record schema": SCHEMA_VERSION,
        "rows": f"{rows:,}" + (f", selected by `{where}`" if where else f" of {spec.n_cells:,} planned"),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    columns = [
        f"| {f.name} | {f.type} | {COLUMN_MEANINGS[f.name].replace('|', chr(92) + '|')} |" for f in RECORD_SCHEMA
    ]
    return "\n".join(
        [
            "---",
            f"pretty_name: thoughtgraft {spec.study} records",
            "tags: [interpretability, latent-reasoning, causal-intervention]",
            "configs:",
            "- config_name: default",
            f"  data_files: {file}",
            "---",
            CARD_MARK,
            f"# Records of a thoughtgraft {spec.study} run",
            "",
            "One row per generation. An edit replaces some of the continuous thoughts that a latent-reasoning language",
            "model is fed (`fed[k]`); the row says what was edited and what the model then answered.",
            "",
            *lines,
            "",
            "| column | type | meaning |",
            "|---|---|---|",
            *columns,
            "",
        ]
    )
