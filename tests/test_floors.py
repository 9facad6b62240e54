"""The architecture: a module imports its own floor or lower, no cycles, and a short way through."""

from __future__ import annotations

import ast
import graphlib
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "cnnjax.spec": 0,
    "cnnjax.ops": 0,
    "cnnjax.environment": 0,
    "cnnjax.compiling": 0,
    "cnnjax.jaxprs": 0,
    "cnnjax.programs": 0,
    "cnnjax.optimization": 0,
    "cnnjax.layers": 1,
    "cnnjax.nets": 1,
    "cnnjax.data": 2,
    "cnnjax.knobs": 2,
    "cnnjax.config": 2,
    "cnnjax.build": 2,
    "cnnjax.train": 3,
    "cnnjax.invariance": 3,
    "cnnjax.study": 4,
    "cnnjax.results": 4,
    "cnnjax.bench": 4,
    "cnnjax.cli": 4,
    "cnnjax.__main__": 4,
    "experiments": 5,
}


def modules() -> dict[str, Path]:
    """Return every module by its dotted name; the contents page cnnjax/__init__.py aside."""
    found = {}
    for path in [*ROOT.glob("cnnjax/**/*.py"), *ROOT.glob("experiments/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    del found["cnnjax"]
    return found


def imports(path: Path) -> set[str]:
    """Return the project's modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    known = modules()
    return {name for name in names if name in known}


def floor(module: str) -> int:
    """Return the floor of a module: that of the longest prefix in FLOORS."""
    owners = [name for name in FLOORS if f"{module}.".startswith(f"{name}.")]
    assert owners, f"{module} has no floor: add it to FLOORS"
    return FLOORS[max(owners, key=len)]


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down(module: str) -> None:
    above = {name for name in imports(modules()[module]) if floor(name) > floor(module)}
    assert not above, f"{module} (floor {floor(module)}) imports {above}"


def test_no_cycles() -> None:
    graph = {name: imports(path) - {name} for name, path in modules().items()}
    # A package's contents page names its modules; only imports between modules can be circular.
    pages = {name for name, path in modules().items() if path.name == "__init__.py"}
    tables = {"cnnjax.data", "cnnjax.nets"}
    graph = {n: {i for i in found if i not in pages - tables} for n, found in graph.items()}
    for package in tables & pages:
        inside = [n for n in graph if n.startswith(f"{package}.")]
        for name in inside:
            graph[name].discard(package)
    graphlib.TopologicalSorter(graph).prepare()


def test_operators_know_only_jax() -> None:
    allowed = {"jax", "numpy", "cnnjax", "__future__", "collections", "functools", "math"}
    allowed |= {"typing", "dataclasses", "operator", "inspect", "itertools", "enum", "types"}
    for name, path in modules().items():
        if not name.startswith("cnnjax.ops"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert {item.split(".")[0] for item in found} <= allowed, (name, found)


def test_flags_are_never_global() -> None:
    for name, path in modules().items():
        assert "flags.FLAGS" not in path.read_text(), f"{name} reads the process-wide FLAGS"


STORY = ("config", "build", "study/trial", "train/step", "nets/cnn", "ops/local")


def test_from_a_configuration_to_a_number_in_six_hundred_lines() -> None:
    """What the README promises a newcomer: lines with code, docstrings and comments aside."""
    assert sum(len(code_lines(ROOT / f"cnnjax/{name}.py")) for name in STORY) <= 600


def code_lines(path: Path) -> set[int]:
    text = path.read_text()
    prose: set[int] = set()
    told = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, told) and ast.get_docstring(node):
            first = node.body[0]
            prose |= set(range(first.lineno, (first.end_lineno or 0) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    used = (range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in blank)
    return {line for lines in used for line in lines} - prose
