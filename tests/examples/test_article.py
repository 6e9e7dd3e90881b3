"""What the article's client becomes: the diffs apply, and what they make works."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.components import require
from tests.conftest import C_SOURCES
from tests.examples.scene import EXAMPLES, end, running, tcp_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.processes import RelayProcess

pytestmark = pytest.mark.needs("gcc", "patch")


def changed_client(diff: str, directory: Path) -> Path:
    """Return the article's client, changed by a diff and compiled."""
    source, program = directory / "article_client.c", directory / "changed-client"
    source.write_bytes((C_SOURCES / "article_client.c").read_bytes())
    change: list[str | Path] = ["patch", "--quiet", "-p1", "--fuzz=0", "--input", EXAMPLES / "article" / diff]
    subprocess.run(change, cwd=directory, check=True)
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([require("gcc"), *flags, "-o", program, source], check=True)
    return program


@contextmanager
def two_clients(relay: RelayProcess, program: Path, cwd: Path, *last: str) -> Iterator[list[tuple[int, str, str]]]:
    """Run A, which sends 1 to B, and B, which sends 2 to A; yields how they ended."""
    with (
        running([program, "A", "B", "1", "-", *last], cwd=cwd) as a,
        running([program, "B", "A", "2", "-", *last], cwd=cwd) as b,
    ):
        relay.wait_for("client joined")
        relay.wait_for("client joined")
        for client in (a, b):
            assert client.stdin is not None
            client.stdin.write("\n")
            client.stdin.flush()
        yield [end(a), end(b)]


def test_with_one_line_it_can_be_run_again(relay: RelayProcess, tmp_path: Path) -> None:
    program = changed_client("unlink.diff", tmp_path)
    for _ in range(2):
        with two_clients(relay, program, tmp_path) as ended:
            assert ended == [(0, "B2\n", "connected\n"), (0, "A1\n", "connected\n")]


def test_over_tcp_it_writes_a_hello_more(relay: RelayProcess, tmp_path: Path) -> None:
    program = changed_client("tcp.diff", tmp_path)
    with two_clients(relay, program, tmp_path, tcp_port(relay)) as ended:
        assert ended == [(0, "B2\n", "connected\n"), (0, "A1\n", "connected\n")]
