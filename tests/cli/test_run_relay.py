"""A relay as a process: the signals of its first moments, of terminals and of operators."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.cli import processes
from tests.cli.processes import RelayProcess, relay
from tests.relay.in_process import write_tls_files
from tests.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCKERFILE = Path(__file__).parents[2] / "docker" / "Dockerfile"

SIGNAL_WHILE_LOADING = """
import os, signal, sys
class Impatient:
    def find_spec(self, name, path, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Impatient())
from triorelay.cli import main
main(sys.argv[1:])
"""
"""A program whose first signal comes as early as it can be sent from inside: before the first library is loaded."""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_program_is_loaded_ends_it_as_any_other(tmp_path: Path, name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SIGNAL_WHILE_LOADING.format(name=name), "serve", "--unix", "s"],
        cwd=tmp_path,
        env=processes.environment({}),
        stderr=subprocess.PIPE,
        timeout=processes.PATIENCE,
    )
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("name", "answer"), [("SIGHUP", "reloaded"), ("SIGUSR1", "SIGUSR1 without a flight recorder")])
def test_a_signal_for_a_running_relay_that_comes_while_it_is_loaded_waits_for_it(
    tmp_path: Path, name: str, answer: str
) -> None:
    with watched(
        subprocess.Popen(
            [sys.executable, "-c", SIGNAL_WHILE_LOADING.format(name=name), "serve", "--unix", "s"],
            cwd=tmp_path,
            env=processes.environment({}),
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        running = RelayProcess(process, "")
        running.wait_for(answer)
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0


@pytest.fixture
def as_process_1(require: Callable[[str], str]) -> list[str]:
    """The words that make what comes after them process 1, as in a container."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [require("pidns"), "--pid", "--fork", *as_root, "--kill-child"]


@pytest.fixture
def entry_of_image() -> list[str]:
    """The words of the image's ENTRYPOINT before `triorelay`."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    *before, program = json.loads(found[1])
    assert program == "triorelay"
    return list(before)


def run_in_namespace(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=processes.environment({}), capture_output=True, text=True, timeout=processes.PATIENCE
    )


def test_process_1_obeys_a_signal_that_comes_while_it_is_loaded(tmp_path: Path, as_process_1: list[str]) -> None:
    program = [sys.executable, "-c", SIGNAL_WHILE_LOADING.format(name="SIGTERM"), "serve", "--unix", "s"]
    result = run_in_namespace(*as_process_1, *program, cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr


SIGNAL_BEFORE_PYTHON = """
import os, signal, sys
os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that gets its signal before it is replaced by the one that its arguments name."""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["serve", "--unix", "s"], 0), (["receive", "--relay", "unix:s", "--reconnect"], 130)],
    ids=["relay", "client"],
)
def test_as_the_image_starts_it_process_1_obeys_a_signal_that_came_before_python(
    tmp_path: Path, as_process_1: list[str], entry_of_image: list[str], arguments: list[str], code: int
) -> None:
    signalled = [sys.executable, "-c", SIGNAL_BEFORE_PYTHON, *processes.command(*arguments)]
    result = run_in_namespace(*as_process_1, *entry_of_image, *signalled, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "s").exists()


def test_a_client_that_is_process_1_ends_by_sigterm(
    tmp_path: Path, as_process_1: list[str], entry_of_image: list[str]
) -> None:
    receive = processes.command("receive", "--relay", "unix:s", "--id", "B")
    with (
        relay("--unix", "s", cwd=tmp_path) as running,
        watched(
            subprocess.Popen(
                [*as_process_1, *entry_of_image, *receive],
                cwd=tmp_path,
                env=processes.environment({}),
                stderr=subprocess.PIPE,
                text=True,
            )
        ) as process,
    ):
        running.wait_for("client joined id=B")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        assert process.wait() == 130


@contextmanager
def in_a_terminal(*arguments: str, cwd: Path) -> Iterator[tuple[RelayProcess, int]]:
    """Run a relay in a terminal of its own; give it, and the end of the terminal that a window would have."""
    window, terminal = pty.openpty()
    with watched(
        subprocess.Popen(
            # Of a session of its own, whose terminal is the one that it opens first.
            ["setsid", "--ctty", "--wait", *arguments, *processes.command("serve", "--unix", "s")],
            cwd=cwd,
            env=processes.environment({}),
            stdin=terminal,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        os.close(terminal)
        running = RelayProcess(process, "")
        running.wait_for("ready")
        yield running, window


def test_a_terminal_that_closes_drains_the_relay(tmp_path: Path) -> None:
    with in_a_terminal(cwd=tmp_path) as (running, window):
        os.close(window)
        running.wait_for("terminal closed")
        assert running.wait_for("ledger ")
    assert not (tmp_path / "s").exists()


def test_in_a_terminal_too_an_operator_s_signal_reads_the_configuration_again(tmp_path: Path) -> None:
    with in_a_terminal(cwd=tmp_path) as (running, window):
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        os.close(window)
        running.wait_for("terminal closed")


def test_under_nohup_it_survives_the_terminal_and_still_reloads(tmp_path: Path) -> None:
    with in_a_terminal("nohup", cwd=tmp_path) as (running, window):
        os.close(window)
        assert "ignored=True" in running.wait_for("terminal closed")
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        running.signal(signal.SIGTERM)
        running.wait_for("ledger ")


def test_a_configuration_that_never_comes_is_given_up_and_frames_go_on(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text('unix = ["s"]\n')
    with relay("--config", "relay.toml", cwd=tmp_path) as running:
        (tmp_path / "relay.toml").unlink()
        os.mkfifo(tmp_path / "relay.toml")
        running.signal(signal.SIGHUP)
        assert processes.run("ping", "-n", "1", "--relay", "unix:s", cwd=tmp_path).returncode == 0
        assert "relay.toml: it is a pipe, and its end did not come" in running.wait_for("reload failed")
        (tmp_path / "relay.toml").unlink()
        (tmp_path / "relay.toml").write_text('unix = ["s"]\n')
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0


GUARDED = """
unix = ["s"]
tcp = ["127.0.0.1:0"]
allow = ["127.0.0.1/32"]
admin = ["a"]
admin_token_file = "token"

[principals.one]
uid = {uid}
ids = "A"
to = "B"

[principals.two]
uid = 9734
"""


@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        (r".*", "it is missing"),
        (r"\[principals.*", "principals: there are none any more"),
        (r"allow.*?\n", 'allow: it is missing, and its default lets in more; write allow = \\"private\\"'),
        (r"ids.*", 'principals.one.ids: it is missing, and its default is all; write ids = \\"*\\"'),
        (r"to = .*", 'principals.one.to: it is missing, and its default is all; write to = \\"*\\"'),
        (r"admin_token_file.*?\n", "admin_token_file: it is missing"),
        (r' = "B".*', "not TOML"),
        (r"34\n$", "relay.toml: its last line has no newline, so it may be cut off"),
        (r"\n$", "relay.toml: its last line has no newline, so it may be cut off"),
    ],
    ids=[
        "emptied",
        "cut before the principals",
        "allow",
        "cut before ids",
        "cut before to",
        "token",
        "cut in a line",
        "cut in a number",
        "cut before the last newline",
    ],
)
def test_a_file_that_lost_what_kept_clients_out_is_refused(tmp_path: Path, lost: str, complaint: str) -> None:
    whole = GUARDED.format(uid=os.getuid())
    file = tmp_path / "relay.toml"
    file.write_text(whole)
    (tmp_path / "token").write_text("a token of good length")
    with relay("--config", "relay.toml", cwd=tmp_path) as running:
        file.write_text(re.sub(lost, "", whole, count=1, flags=re.DOTALL))
        running.signal(signal.SIGHUP)
        assert complaint in running.wait_for("reload failed")
        result = processes.run("send", "--relay", "unix:s", "--id", "C", "B", "x", cwd=tmp_path)
        assert "C may not be held" in result.stderr or "code 2" in result.stderr, result
        # Whole again, it is accepted.
        file.write_text(whole)
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")


def test_a_file_that_never_had_a_newline_at_its_end_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('unix = ["s"]')
    with relay("--config", "relay.toml", cwd=tmp_path) as running:
        file.write_text('unix = ["s"]\n[principals.one]\nuid = 1')
        running.signal(signal.SIGHUP)
        assert "principals=1" in running.wait_for("reloaded")


def test_a_hello_that_comes_while_the_relay_is_stopped_is_not_too_late(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_tls_files(tmp_path, authority)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = ["--tls-cert", "relay.pem", "--tls-key", "relay.key"]
    with relay("--tls", "127.0.0.1:0", *files, "--hello-timeout", "1", cwd=tmp_path) as running:
        place = re.search(r"tls:127\.0\.0\.1:(\d+)", running.ready)
        assert place is not None

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", int(place[1])), timeout=processes.PATIENCE)

        def claim(plain: socket.socket, id: bytes) -> None:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                client.sendall(id + b"\x81")
                assert client.recv(2) == id + b"\0"

        with connect() as early:
            # A later connection has an id, so this one is accepted.
            claim(connect(), b"A")
            running.signal(signal.SIGSTOP)
            speaking = threading.Thread(target=claim, args=[early, b"B"])
            speaking.start()
            # What is tested is that this time passes.
            time.sleep(2.5)
            running.signal(signal.SIGCONT)
            assert "id=B" in running.wait_for("client joined id=B")
            speaking.join()
