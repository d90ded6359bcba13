"""Conditions on records, such as `method == "swap" and slots == [3]`: a small language, parsed, never executed.

    column == != < <= > >= literal      slots == [0, 3]      3 in slots      method in ["swap", "zero"]
    pred is None      error is not None      correct      not adopted      and, or, parentheses

Answers are text: `pred == "42"`. A comparison with an undefined value is undefined, and keeps no row.
"""

from __future__ import annotations

import ast
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from thoughtgraft.arguments import need, shown
from thoughtgraft.errors import RunError
from thoughtgraft.records.schema import RECORD_SCHEMA

EXAMPLE = 'method == "swap" and slots == [3]'
_COMPARE = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_MIRROR = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}


class RecordFilter:
    """A parsed condition.

    Args:
        text: The condition, in this module's language.

    Raises:
        RunError: It does not parse, or names an unknown column.
    """

    def __init__(self, text: str) -> None:
        fix = f"for example: {EXAMPLE}"
        self.text = need(text, str, "the filter", RunError, expected="a condition as text", fix=fix)
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            raise self._fault("does not parse", getattr(error, "msg", None) or str(error)) from error
        self.columns = sorted({node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)})
        if unknown := [name for name in self.columns if name not in RECORD_SCHEMA.names]:
            raise self._fault("names unknown columns", ", ".join(unknown))
        self._mask(self._tree, RECORD_SCHEMA.empty_table())  # Type errors show here, before anything is read.

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows of `table` for which the condition holds."""
        mask = self._mask(self._tree, table)
        if not pa.types.is_boolean(mask.type):
            raise self._fault("is not a condition")
        return table.filter(mask)

    def _mask(self, node: ast.expr, table: pa.Table) -> Any:
        if isinstance(node, ast.BoolOp):
            combine = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            mask = self._mask(node.values[0], table)
            for value in node.values[1:]:
                mask = combine(mask, self._mask(value, table))
            return mask
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(self._mask(node.operand, table))
        if isinstance(node, ast.Name):
            column = table[node.id]
            if not pa.types.is_boolean(column.type):
                raise self._fault(f"uses {node.id!r} as a condition, but it is {column.type}", node.id)
            return column
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            pairs = zip(operands, node.ops, operands[1:], strict=False)  # a < b < c is a < b and b < c
            masks = [self._compare(left, op, right, table) for left, op, right in pairs]
            mask = masks[0]
            for other in masks[1:]:
                mask = pc.and_kleene(mask, other)
            return mask
        raise self._fault("is not a condition", ast.unparse(node))

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr, table: pa.Table) -> Any:
        try:
            if isinstance(op, ast.In | ast.NotIn):
                mask = self._member(left, right, table)
                return pc.invert(mask) if isinstance(op, ast.NotIn) else mask
            if isinstance(op, ast.Is | ast.IsNot):
                if not isinstance(left, ast.Name) or self._literal(right) is not None:
                    raise self._fault("uses `is` other than with None", ast.unparse(right))
                return pc.is_null(table[left.id]) if isinstance(op, ast.Is) else pc.is_valid(table[left.id])
            if not isinstance(left, ast.Name) and isinstance(right, ast.Name):
                mirrored = _MIRROR.get(type(op))
                left, right, op = right, left, mirrored() if mirrored else op
            if not isinstance(left, ast.Name):
                raise self._fault("compares no column", ast.unparse(left))
            column = table[left.id]
            value = table[right.id] if isinstance(right, ast.Name) else self._literal(right)
            if value is None:
                raise self._fault("compares with None", f"write: {left.id} is None")
            if pa.types.is_list(column.type):
                return self._compare_lists(column, type(op), value)
            return _COMPARE[type(op)](
                column, value if isinstance(value, pa.ChunkedArray) else self._scalar(value, column.type)
            )
        except (pa.ArrowException, TypeError, OverflowError) as error:
            kind = f"{left.id} is {table[left.id].type}" if isinstance(left, ast.Name) else str(error)
            raise self._fault("compares values of different kinds", kind) from error

    def _scalar(self, value: Any, kind: pa.DataType) -> pa.Scalar:
        # Numbers compare with numbers, text with text; arrow would turn `pred == 42` or `correct == 1` into a riddle.
        if isinstance(value, bool) != pa.types.is_boolean(kind) or isinstance(value, str) != pa.types.is_string(kind):
            raise TypeError
        return pa.scalar(value)

    def _compare_lists(self, column: pa.ChunkedArray, op: type[ast.cmpop], value: Any) -> Any:
        if op not in (ast.Eq, ast.NotEq) or not isinstance(value, list | tuple):
            raise self._fault("compares a list column with something else", "write: slots == [3], or 3 in slots")
        return _COMPARE[op](_as_text(column), ",".join(str(int(k)) for k in value))

    def _member(self, left: ast.expr, right: ast.expr, table: pa.Table) -> Any:
        if isinstance(right, ast.Name) and pa.types.is_list(table[right.id].type):
            wrapped = pc.binary_join_element_wise("", _as_text(table[right.id]), "", ",")
            return pc.match_substring(wrapped, f",{int(self._literal(left))},")
        if not isinstance(left, ast.Name):
            raise self._fault("has `in` without a column", ast.unparse(left))
        values, column = self._literal(right), table[left.id]
        if not isinstance(values, list | tuple | set):
            raise self._fault("has `in` without a list", ast.unparse(right))
        if pa.types.is_list(column.type):
            texts = [",".join(str(int(k)) for k in value) for value in values]
            found = pc.is_in(_as_text(column), value_set=pa.array(texts, pa.string()))
        else:
            scalars = [self._scalar(value, column.type).as_py() for value in values]
            found = pc.is_in(column, value_set=pa.array(scalars, column.type))
        return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))

    def _literal(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError) as error:
            raise self._fault("holds something that is neither a column nor a literal", ast.unparse(node)) from error

    def _fault(self, why: str, got: str | None = None) -> RunError:
        return RunError(f"the filter {shown(self.text)} {why}", got=got, fix=f"for example: {EXAMPLE}")


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    from thoughtgraft.records.shards import list_text

    return list_text(column)
