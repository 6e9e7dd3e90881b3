"""The shape of the package: which part imports which, how long a file is, what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import triorelay

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(triorelay.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Part of the package (a package or a module of it) to the other parts that it may import. `_version`, `_liveness`,
# `_fields` and `_files` are open to all but the protocol, `_build` to all.
ARROWS = {
    "protocol": set(),
    "relay": {"protocol"},
    "client": {"protocol"},
    "recording": {"protocol"},
    "admin": {"protocol", "recording", "relay"},
    "cluster": {"protocol", "relay"},
    "handover": {"protocol", "relay"},
    "blocking": {"protocol", "client"},
    "testing": {"protocol", "relay", "client", "cluster"},
    "cli": {"__init__", "protocol", "recording", "relay", "client", "admin", "cluster", "handover", "testing"},
    "__init__": {"protocol", "relay", "client"},
    "__main__": {"cli"},
    "_build": set(),
    "_mypyc": set(),
    "_fields": set(),
    "_files": {"protocol"},
    "_liveness": set(),
    "_version": set(),
}

# protocol/ turns bytes into events and back. Code that waits, connects or reads a clock belongs elsewhere.
NOT_FOR_PROTOCOL = {
    "asyncio",
    "datetime",
    "select",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "trio",
}

# Long enough that length shapes no design, short enough to be read at a time.
LONGEST = 400

# Files that import one another, even for a type or inside a function, cannot be understood one by one.
WITHOUT_CIRCLES = sorted({path.parent for path in SOURCES if path.parent != PACKAGE})


def relative_name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """The absolute names of all modules that a file imports, wherever in it, in functions and for types alone too."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from triorelay import relay` and `from . import _x` name a module only with what they import.
            named = module == PACKAGE.name or not node.module
            yield from (f"{module}.{alias.name}" for alias in node.names) if named else [module]


def modules_loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running the code."""
    code += "\nimport sys\nsys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(result.stderr.split())


def test_sources_are_found() -> None:
    assert {"protocol", "relay"} <= {part_of(path) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=relative_name)
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(path)
    dotted = [name.split(".") for name in imported_modules(path)]
    ours = {(*rest, "__init__")[0] for root, *rest in dotted if root == PACKAGE.name}
    open_to_it = (
        {"_build"} if part == "protocol" else {"_build", "_mypyc", "_version", "_liveness", "_fields", "_files"}
    )
    assert ours - ARROWS[part] - open_to_it - {part} == set()


def test_protocol_does_no_io() -> None:
    for path in (PACKAGE / "protocol").rglob("*.py"):
        modules = {name.partition(".")[0] for name in imported_modules(path)}
        assert modules & NOT_FOR_PROTOCOL == set(), path


@pytest.mark.parametrize("package", WITHOUT_CIRCLES, ids=relative_name)
def test_no_file_of_a_package_knows_one_that_knows_it(package: Path) -> None:
    prefix = ".".join(package.relative_to(PACKAGE.parent).parts)
    known = {
        path.stem: {name.removeprefix(f"{prefix}.").partition(".")[0] for name in imported_modules(path)}
        for path in package.glob("*.py")
    }
    assert any(known.values())
    while free := [name for name, others in known.items() if not others & known.keys()]:
        for name in free:
            del known[name]
    assert sorted(known) == [], "each of these knows another of them"


@pytest.mark.parametrize("package", sorted({path.parent for path in SOURCES}), ids=relative_name)
def test_the_map_of_a_package_names_each_of_its_files_and_no_other(package: Path) -> None:
    lines = (package / "__init__.py").read_text().splitlines()
    named = set(re.findall(r"(?<![\w/`.])_\w+|\bblocking\b", " ".join(line for line in lines if line.startswith("#"))))
    assert named == {path.stem for path in package.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("path", SOURCES, ids=relative_name)
def test_no_file_is_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST


def test_importing_the_library_loads_nothing_of_commands_and_admin() -> None:
    loaded = modules_loaded_by("import triorelay")
    assert "triorelay" in loaded
    assert loaded & {"click", "rich", "h11", "prometheus_client", "msgspec"} == set()


def test_help_does_not_load_trio() -> None:
    loaded = modules_loaded_by(
        "from triorelay.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as exit:\n"
        "    assert not exit.code\n"
    )
    assert "click" in loaded
    assert "trio" not in loaded


def test_a_relay_without_admin_endpoint_and_cluster_loads_nothing_for_them(tmp_path: Path) -> None:
    loaded = modules_loaded_by(
        "import sys\n"
        "from triorelay.cli import main\n"
        "try:\n"
        f"    main(['serve', '--unix', '{tmp_path}/missing/socket', '--admin', 'none'])\n"
        "except SystemExit as exit:\n"
        "    assert exit.code == 1\n"
        "parts = {name.split('.')[1] for name in sys.modules if name.startswith('triorelay.')}\n"
        "assert 'relay' in parts\n"
        "assert not parts & {'admin', 'cluster', 'client', 'recording'}, parts\n"
        "assert 'triorelay.handover' in sys.modules\n"
    )
    assert "trio" in loaded
    assert loaded & {"h11", "msgspec", "prometheus_client", "rich", "tomllib"} == set()
