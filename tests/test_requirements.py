"""The pinned lists, and how the environments are made of them, as at a first `make` on a new machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LISTS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==\S+( ; [^\\]+)? \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+\n")


def make_environment(python: Path | str, directory: Path) -> list[str]:
    """The lines on standard error of an attempt that must fail, and leave nothing behind."""
    command = [ROOT / "requirements/install", python, directory / "venv", "requirements/run.txt"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert not (directory / "venv").exists()
    return result.stderr.splitlines()


def fake_python(directory: Path, beginning: str) -> Path:
    """This Python, with a few statements before the program that it is given by -c."""
    path = directory / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{beginning}\n$2"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_list_holds_pins_with_hashes_and_no_address(path: Path) -> None:
    heading, *pins = path.read_text().splitlines(keepends=True)
    assert heading == "# Made by 'make lock' from pyproject.toml.\n"
    assert PIN.sub("", "".join(pins)) == ""


@pytest.mark.parametrize("name", ["requirements/install", "requirements/try", "docker/Dockerfile"])
def test_a_list_is_installed_as_it_stands(name: str) -> None:
    """Resolving it again fails on the day on which one of its packages has a newer release."""
    commands = [line for line in (ROOT / name).read_text().splitlines() if re.search(r"pip.* (install|wheel) ", line)]
    assert commands
    assert [line for line in commands if "--no-deps" not in line] == []


def test_what_the_relay_runs_with_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split("[<>=]", dependency)[0] for dependency in project["dependencies"]}
    pinned = {match["name"] for match in PIN.finditer((ROOT / "requirements/run.txt").read_text())}
    assert named <= pinned


def test_types_are_checked_without_trio_typing() -> None:
    assert "trio-typing==" in (ROOT / "requirements/test.txt").read_text()
    assert "trio-typing==" not in (ROOT / "requirements/check.txt").read_text()


def test_a_missing_python_is_one_line(tmp_path: Path) -> None:
    (line,) = make_environment(tmp_path / "absent", tmp_path)
    assert line.startswith(f"{tmp_path}/absent does not run")


def test_a_python_too_old_is_one_line(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "import sys; sys.version_info = (3, 10, 12)")
    (line,) = make_environment(python, tmp_path)
    assert "Python 3.10, and triorelay needs 3.11 or later" in line


def test_a_python_without_venv_is_one_line_that_names_the_package(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "import sys; sys.modules['ensurepip'] = None")
    (line,) = make_environment(python, tmp_path)
    assert "install the Debian package python3-venv" in line
