"""Rows out of the documented functions of the standard library, torch and transformers, read as source."""

from __future__ import annotations

import ast
import sysconfig
import textwrap
import warnings
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from demo.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

STDLIB_FILES = (
    "*.py",
    "asyncio/*.py",
    "collections/*.py",
    "concurrent/futures/*.py",
    "email/*.py",
    "http/*.py",
    "importlib/*.py",
    "json/*.py",
    "logging/*.py",
    "multiprocessing/*.py",
    "unittest/*.py",
    "urllib/*.py",
    "xml/**/*.py",
)
TORCH_FILES = (
    "nn/*.py",
    "nn/modules/*.py",
    "optim/*.py",
    "utils/*.py",
    "utils/data/**/*.py",
    "distributions/*.py",
)
TRANSFORMERS_FILES = ("*.py", "data/**/*.py", "generation/*.py")

MAX_CODE_BYTES = 340
SUMMARY_BYTES = range(40, 260)
MARKUP = ("``", ":math:", ":class:", ":func:", ":meth:", "::", ">>>", "[`", "`:")


def function_rows() -> Iterator[Row]:
    """A row for each public function with a plain summary: half are asked by code, half by name."""
    for path, module in _source_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
        # Not splitlines: it ends a line at a form feed as well, and the parser's line numbers do not.
        lines = path.read_text(encoding="utf-8").split("\n")
        for name, function in _public_functions(tree, module):
            summary = _summary(function)
            if summary is None:
                continue
            if sha256(name.encode()).digest()[0] % 2:
                yield Row("name-to-explanation", f"What does `{name}` do in Python?", summary)
            elif code := _code_without_docstring(function, lines):
                yield Row("code-to-docstring", f"Write a docstring for this function.\n\n{code}", summary)


def _source_files() -> Iterator[tuple[Path, str]]:
    """Each file with the dotted name of its module, in a fixed order."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    roots: list[tuple[str, Path, tuple[str, ...]]] = [("", stdlib, STDLIB_FILES)]
    for package, files in (("torch", TORCH_FILES), ("transformers", TRANSFORMERS_FILES)):
        spec = find_spec(package)
        if spec and spec.origin:
            roots.append((package, Path(spec.origin).parent, files))
    for package, root, patterns in roots:
        for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
            relative = path.relative_to(root).with_suffix("")
            parts = [package, *relative.parts] if package else list(relative.parts)
            if any(part.startswith("_") for part in parts if part != "__init__"):
                continue
            yield path, ".".join(part for part in parts if part != "__init__")


def _public_functions(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of the module and methods of its classes, by dotted name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found = [(f"{module}.{node.name}", node)]
        elif isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
            found = [(f"{module}.{node.name}.{item.name}", item) for item in methods]
        else:
            continue
        for name, function in found:
            if not any(part.startswith("_") for part in name.split(".")):
                yield name, function


def _summary(function: ast.FunctionDef) -> str | None:
    """The first paragraph of the docstring on one line, if it is a plain sentence of middling length."""
    paragraph = (ast.get_docstring(function) or "").split("\n\n", 1)[0]
    summary = " ".join(paragraph.split())
    plain = summary.endswith(".") and not any(mark in summary for mark in MARKUP)
    return summary if plain and len(summary.encode()) in SUMMARY_BYTES else None


def _code_without_docstring(function: ast.FunctionDef, lines: list[str]) -> str | None:
    """The function's source with its docstring cut out, if it is short and has a body besides."""
    docstring, *body = function.body
    if not body or docstring.end_lineno is None or function.end_lineno is None:
        return None
    if docstring.lineno == function.lineno:
        return None
    head = lines[function.lineno - 1 : docstring.lineno - 1]
    code = textwrap.dedent("\n".join([*head, *lines[docstring.end_lineno : function.end_lineno]]))
    return code if len(code.encode()) <= MAX_CODE_BYTES else None
