"""Reads the source with `ast`, so that the architecture test can judge it; run as a module it prints the counts."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PACKAGE = "thoughtgraft"
SRC = Path(__file__).resolve().parents[1] / "src"

MIN_LINES, MAX_LINES = 120, 500  # of a file
MAX_FUNCTION, MAX_PARAMETERS = 60, 8
MAX_LONG, MAX_CROWDED = (
    8,
    1,
)  # functions that may be longer, and may take more: load_model takes a name and eight options
# The only file that imports wandb, which is an extra; and a study has a design of its own, however small.
ALONE = {"wandb_tracker.py", "design.py"}


@dataclass(frozen=True)
class Import:
    """One imported name: where it is written and what it reaches, as a dotted path."""

    file: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(SRC.parent)}:{self.line} imports {self.target}"


def source_files(room: str | None = None) -> list[Path]:
    """Every source file, or those of one room (a folder or a single module of the package)."""
    files = sorted((SRC / PACKAGE).rglob("*.py"))
    return files if room is None else [file for file in files if room_of_file(file) == room]


def room_of_file(file: Path) -> str:
    """The room a file belongs to: `problems`, `errors`, `__init__` ..."""
    return file.relative_to(SRC / PACKAGE).parts[0].removesuffix(".py")


def room_of_target(target: str, rooms: Collection[str]) -> str:
    """The room a dotted path of the package reaches; a name of the package itself counts as `__init__`."""
    parts = target.split(".")
    if len(parts) > 1 and (parts[1] in rooms or (SRC / PACKAGE / parts[1]).is_dir()):
        return parts[1]
    return "__init__"


def module_name(file: Path) -> str:
    """The dotted name of a source file; a package's own name for its `__init__`."""
    parts = file.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path, text: str | None = None) -> list[Import]:
    """Every import in a file, wherever it stands: at the top, in a function, for type checkers, or by name.

    Args:
        file: The source file.
        text: Its content, where it is not to be read from disk.

    Returns:
        One Import per imported name; `from a import b` reaches `a.b`.
    """
    package = module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    found: list[Import] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8") if text is None else text)):
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [Import(file, node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.append(Import(file, node.lineno, name.value))
    return found


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def internal(found: list[Import]) -> list[Import]:
    """Those that reach this package."""
    return [i for i in found if i.target.split(".")[0] == PACKAGE]


def module_file(target: str) -> Path | None:
    """The file that a dotted path names or lies in, packages' `__init__` left out; None where there is none."""
    parts = target.split(".")
    for end in (len(parts), len(parts) - 1):
        file = SRC.joinpath(*parts[:end]).with_suffix(".py")
        if file.is_file():
            return file
    return None


def cycles() -> list[list[str]]:
    """Groups of files that import each other in a circle, lazy imports included, each as the files' dotted names."""
    graph = {
        file: {t for i in internal(imports_of(file)) if (t := module_file(i.target)) is not None and t != file}
        for file in source_files()
    }
    graph = {file: {t for t in targets if t in graph} for file, targets in graph.items()}
    while leaves := [file for file, targets in graph.items() if not targets]:
        graph = {file: targets - set(leaves) for file, targets in graph.items() if targets}
    # What is left lies on a circle or leads to one: walk until a file comes again.
    found: list[list[str]] = []
    seen: set[Path] = set()
    for start in graph:
        path: list[Path] = []
        at = start
        while at not in seen and at not in path:
            path.append(at)
            at = min(graph[at])
        if at in path:
            found.append([module_name(file) for file in [*path[path.index(at) :], at]])
        seen.update(path)
    return found


@dataclass(frozen=True)
class Function:
    """A function or method: where it stands, its lines from `def` on, and its parameters without self or cls."""

    file: Path
    name: str
    lines: int
    parameters: int

    def __str__(self) -> str:
        return f"{module_name(self.file)}.{self.name}: {self.lines} lines, {self.parameters} parameters"


def functions() -> list[Function]:
    """Every function of the source, nested ones included."""
    found = []
    for file in source_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                taken = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                own = taken[1:] if taken[:1] in (["self"], ["cls"]) else taken
                found.append(Function(file, node.name, node.end_lineno - node.lineno + 1, len(own)))
    return found


def lines_of(file: Path) -> int:
    """Lines of a source file."""
    return len(file.read_text(encoding="utf-8").splitlines())


def serving_one(least: int) -> list[str]:
    """Files under `least` lines that one other file alone imports, with that file."""
    users: dict[Path, set[Path]] = {}
    for file in source_files():
        for item in internal(imports_of(file)):
            if (target := module_file(item.target)) not in (None, file):
                users.setdefault(target, set()).add(file)
    return [
        f"{module_name(file)}, {lines_of(file)} lines, serves {module_name(*by)} alone"
        for file, by in sorted(users.items())
        if len(by) == 1 and lines_of(file) < least and file.name not in ALONE
    ]


def counts() -> dict[str, str]:
    """How large the house is, by what is counted."""
    files = [file for file in source_files() if file.name != "__init__.py"]
    largest = max(files, key=lines_of)
    return {
        "files": str(len(files)),
        "median lines": f"{median(map(lines_of, files)):g}",
        "longest": f"{lines_of(largest)} ({module_name(largest)})",
        f"under {MIN_LINES} lines, imported by one": str(len(serving_one(MIN_LINES))),
        "circles of imports": str(len(cycles())),
        f"functions over {MAX_FUNCTION} lines": str(sum(f.lines > MAX_FUNCTION for f in functions())),
        f"functions over {MAX_PARAMETERS} parameters": f"{len(crowded())} outside the command line",
    }


def crowded() -> list[Function]:
    """Functions of too many parameters. In the command line the parameters of a command are its options."""
    return [f for f in functions() if f.parameters > MAX_PARAMETERS and room_of_file(f.file) != "cli"]


if __name__ == "__main__":
    sys.stdout.writelines(f"{what:<36} {n}\n" for what, n in counts().items())
