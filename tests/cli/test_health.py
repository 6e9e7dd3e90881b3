"""`triorelay health`: asked every few seconds for each relay, so it has to cost next to nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.clients import client
from tests.cli.processes import assert_one_line, relay, run
from tests.prometheus import free_port

if TYPE_CHECKING:
    from pathlib import Path

MODULES = """
import atexit, sys
atexit.register(lambda: sys.stderr.write(" ".join(sys.modules)))
from triorelay.cli import main
main(sys.argv[1:])
"""
HEAVY = {"click", "trio", "h11", "msgspec", "logging", "asyncio", "ssl", "triorelay.protocol", "triorelay.cli._main"}
"""Each takes longer to import than the question takes."""


def modules_of(*words: str, cwd: Path, settings: dict[str, str] | None = None) -> tuple[str, set[str]]:
    result = subprocess.run(
        [sys.executable, "-c", MODULES, *words],
        cwd=cwd,
        env=processes.environment(settings or {}),
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
    )
    assert result.returncode == 0, result
    return result.stdout, set(result.stderr.split())


@pytest.mark.parametrize("settings", [{}, {"TRIORELAY_ADMIN": "unix:server_socket.admin"}], ids=["default", "variable"])
def test_at_a_unix_socket_it_imports_next_to_nothing(tmp_path: Path, settings: dict[str, str]) -> None:
    with relay(cwd=tmp_path):
        said, modules = modules_of("health", cwd=tmp_path, settings=settings)
    assert said == "ok\n"
    assert modules & HEAVY == set()


@pytest.mark.parametrize("admin", ["unix:server_socket.admin", "unix://server_socket.admin"], ids=["cheap", "usual"])
@pytest.mark.parametrize(("kind", "complaint"), [("full", "No space left on device"), ("closed", "")])
def test_a_standard_output_that_takes_nothing_is_a_failure_without_a_traceback(
    tmp_path: Path, kind: str, complaint: str, admin: str
) -> None:
    reading, writing = os.pipe()
    if kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), writing)
    os.close(reading)
    try:
        with relay(cwd=tmp_path):
            result = run("health", "--admin", admin, cwd=tmp_path, loaded=False, stdout=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, f"triorelay: {complaint}\n" if complaint else "")


def test_ctrl_c_while_a_relay_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with (
        socket.create_server(str(tmp_path / "server_socket.admin"), family=socket.AF_UNIX) as silent,
        client("health", cwd=tmp_path) as asking,
    ):
        silent.settimeout(processes.PATIENCE)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1) == b"G"  # the command waits for the answer from now on
            asking.send_signal(signal.SIGINT)
            _, complaint = asking.communicate(timeout=processes.PATIENCE)
    assert (asking.returncode, complaint) == (130, b"triorelay: interrupted\n")


@pytest.mark.parametrize(
    "words", [("--admin", "127.0.0.1:{port}"), ("--admin=localhost:{port}",), ("--admin", "{port}")]
)
def test_at_a_port_it_imports_next_to_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    port = free_port()
    with relay("--admin", f"127.0.0.1:{port}", cwd=tmp_path):
        said, modules = modules_of("health", *(word.format(port=port) for word in words), cwd=tmp_path)
    assert said == "ok\n"
    assert modules & HEAVY == set()


def test_at_a_path_without_a_prefix_it_imports_next_to_nothing(tmp_path: Path) -> None:
    with relay("--admin", "elsewhere", cwd=tmp_path):
        said, modules = modules_of("health", "--admin", "elsewhere", cwd=tmp_path)
    assert said == "ok\n"
    assert modules & HEAVY == set()


@pytest.mark.parametrize("port", ["65536", "9" * 30])
def test_a_number_that_is_no_port_is_one_line(tmp_path: Path, port: str) -> None:
    for place in (port, f"localhost:{port}"):
        assert_one_line(run("health", "--admin", place, cwd=tmp_path), 2, "a port is a number from")


@pytest.mark.parametrize("settings", [{"TRIORELAY_ADMIN": "none, elsewhere"}, {"TRIORELAY_ADMIN": "unix:@{name}"}])
def test_it_is_asked_where_the_variable_says(tmp_path: Path, settings: dict[str, str]) -> None:
    variables = {name: value.format(name=f"triorelay-health-{os.getpid()}") for name, value in settings.items()}
    with relay(cwd=tmp_path, settings=variables):
        assert run("health", cwd=tmp_path, settings=variables).stdout == "ok\n"


def test_an_endpoint_that_ends_the_connection_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server_socket.admin"))
        listener.listen()

        def refuse() -> None:
            # The first question is asked once more, by the code that says what is wrong.
            for _ in range(2):
                accepted, _ = listener.accept()
                accepted.recv(4096)
                accepted.close()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        assert_one_line(run("health", cwd=tmp_path), 1, "the connection to the relay at .* was lost")
        refusing.join()
