"""Makes docs/reference/api.txt: every public name of the library with its signature, one a line.

`make reference` writes the file and `tests/test_docs.py` compares it, so that review sees a change to the API.
It is made from the source, so it is the same in every version of Python, and whether the package is compiled or not.
"""

from __future__ import annotations

import ast
import functools
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import triorelay

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "reference" / "api.txt"

MODULES = ["triorelay", "triorelay.blocking", "triorelay.testing"]
"""What users import; everything else is private."""

SPECIAL = {"__aiter__", "__anext__", "__iter__", "__next__", "__aenter__", "__aexit__", "__enter__", "__exit__"}
"""Methods with underscores that users call, by `for` and `with`."""


DOCUMENTED = {"triorelay.Relay": {"drain", "reload", "snapshot", "close_client"}}
"""Classes of which only these members are public: the reference documents no others."""


def text() -> str:
    return "".join(f"{line}\n" for module in MODULES for line in module_lines(module))


def module_lines(module: str) -> Iterator[str]:
    for name, value in public_names(module):
        if isinstance(value, str):
            yield f"{module}.{name}: str"
        else:
            yield from lines(f"{module}.{name}", definition(value.__module__, name))


def public_names(module: str) -> list[tuple[str, object]]:
    loaded = import_module(module)
    if module == "triorelay":
        names = sorted(triorelay.__all__)
    else:
        names = [name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == module]
    return [
        (name, getattr(loaded, name)) for name in sorted(names) if not name.startswith("_") or name == "__version__"
    ]


@functools.cache
def parsed(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())


def definition(module: str, name: str) -> ast.stmt:
    for node in parsed(module).body:
        if getattr(node, "name", None) == name:
            return node
    raise AssertionError(f"{module} does not define {name}")


def lines(name: str, node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield signature(name, node)
        case ast.ClassDef():
            bases = ", ".join(map(ast.unparse, node.bases))
            yield f"class {name}({bases})" if bases else f"class {name}"
            documented = DOCUMENTED.get(name)
            for member in node.body:
                if documented is None or getattr(member, "name", "") in documented:
                    yield from member_lines(name, member)


def signature(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if "property" in decorators:
        return f"{name}: property{returns}"
    kind = "async with" if "asynccontextmanager" in decorators else "with" if "contextmanager" in decorators else "def"
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) and kind == "def" else ""
    return f"{prefix}{kind} {name}({ast.unparse(node.args)}){returns}"


def member_lines(owner: str, node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name="__init__"):
            yield from attributes(owner, node)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if is_public(name):
            yield signature(f"{owner}.{name}", node)
        case ast.AnnAssign(target=ast.Name(id=name)) if is_public(name):
            default = f" = {ast.unparse(node.value)}" if node.value else ""
            yield f"{owner}.{name}: {ast.unparse(node.annotation)}{default}"
        case ast.Assign(targets=[ast.Name(id=name)]) if is_public(name):
            yield f"{owner}.{name} = {ast.unparse(node.value)}"


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in SPECIAL


def attributes(owner: str, init: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(init):
        match node:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name)) if is_public(name):
                yield f"{owner}.{name}: {ast.unparse(node.annotation)}"
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)]) if is_public(name):
                yield f"{owner}.{name}"


if __name__ == "__main__":
    FILE.write_text(text())
