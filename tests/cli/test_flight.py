"""The flight recorder of a relay process: fetched, asked for by a signal, written when there is a bug."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cli.processes import PATIENCE, RelayProcess, assert_one_line, environment, relay, run
from tests.cli.test_admin import join
from tests.watchdog import watched

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

ON = ("--flight-recorder", "1000000")


def say(a: socket.socket, data: bytes) -> None:
    """A sends to itself, so that it knows that the relay has seen it."""
    a.sendall(b"".join(b"A%c" % byte for byte in data))
    assert a.recv(1000) == b"".join(b"A%c" % byte for byte in data)


def file_in(line: str, key: str) -> str:
    found = re.search(rf" {key}=(\S+)", line)
    assert found is not None, line
    return found[1]


def test_the_last_frames_are_fetched_as_a_recording(tmp_path: Path) -> None:
    with relay(*ON, cwd=tmp_path), join(tmp_path, b"A") as a:
        say(a, b"before")
        a.sendall(b"Z!")
        say(a, b".")
        result = run("record", "--last", "last.mcap", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "recorded 8 frames, 0 messages\n")
        assert run("record", "--last", "--to", "Z", "z.mcap", cwd=tmp_path).stderr.startswith("recorded 1 frames")
    shown = run("show", "last.mcap", cwd=tmp_path).stdout.splitlines()
    assert [line.partition(" ")[2] for line in shown][-2:] == ["A to Z  21  !", "A to A  2e  ."]


def test_sigusr1_writes_it_beside_the_log_for_its_user_alone(tmp_path: Path) -> None:
    with relay(*ON, cwd=tmp_path) as running, join(tmp_path, b"A") as a:
        for number in (1, 2):
            say(a, b"%d" % number)
            running.signal(signal.SIGUSR1)
            line = running.wait_for("flight recorder written")
            path = tmp_path / file_in(line, "file")
            assert path.parent == tmp_path
            assert f"frames={number}" in line
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert run("show", str(path), cwd=tmp_path).stdout.count("\n") == number
        say(a, b"and the relay goes on")
        running.signal(signal.SIGUSR1)
        running.signal(signal.SIGTERM)
        code, lines = running.end()
    assert code == 0
    assert lines[-1].startswith("ledger ")
    assert len(list(tmp_path.glob("triorelay-flight-*.mcap"))) == 3


def test_beside_the_log_is_where_standard_error_goes(tmp_path: Path) -> None:
    log = tmp_path / "log" / "relay.log"
    log.parent.mkdir()
    with log.open("w") as file:
        command = [sys.executable, "-m", "triorelay", "serve", *ON]
        with subprocess.Popen(command, cwd=tmp_path, env=environment({}), stderr=file) as process:
            try:
                while "ready" not in log.read_text():
                    assert process.poll() is None
                process.send_signal(signal.SIGUSR1)
                while "flight recorder written" not in log.read_text():
                    assert process.poll() is None
                process.terminate()
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
    assert len(list(log.parent.glob("triorelay-flight-*.mcap"))) == 1


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with relay(*ON, cwd=tmp_path, settings={"LOGS_DIRECTORY": "/proc/nowhere:/tmp"}) as running:
        running.signal(signal.SIGUSR1)
        line = running.wait_for("flight recorder not written")
        assert "No such file or directory" in line
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0


BUGGY = """
import sys
from triorelay.cli import main
from triorelay.relay import Exchange
whole = Exchange.drop
def drop(self, source, destination, reason, count):
    if destination == ord("!") and reason.value == "no_route":
        raise ZeroDivisionError
    whole(self, source, destination, reason, count)
Exchange.drop = drop
sys.exit(main(["serve", "--flight-recorder", "1000000"]))
"""


@contextmanager
def relay_with_a_bug(cwd: Path) -> Iterator[RelayProcess]:
    command = [sys.executable, "-c", BUGGY]
    with watched(subprocess.Popen(command, cwd=cwd, env=environment({}), stderr=subprocess.PIPE, text=True)) as process:
        running = RelayProcess(process, "")
        running.wait_for("ready")
        yield running


def test_a_bug_that_ends_a_session_writes_it_and_names_it_in_its_line(tmp_path: Path) -> None:
    with relay_with_a_bug(tmp_path) as running, join(tmp_path, b"A") as a, join(tmp_path, b"B") as b:
        say(a, b"before")
        for client in (a, b):
            client.sendall(b"!!!!")
            assert client.recv(1) == b""
        path = file_in(running.wait_for("bug in a session"), "flight_recorder")
        assert file_in(running.wait_for("flight recorder written"), "file") == path
        # The second bug within a minute is logged, and writes no second file.
        running.signal(signal.SIGTERM)
        _, lines = running.end()
    assert [line for line in lines if "flight" in line] == []
    shown = run("show", path, cwd=tmp_path).stdout
    first, last = shown.splitlines()
    assert first.endswith("A to A  62 65 66 6f 72 65  before")
    assert last.endswith("A to !  21 21  !!")
    assert len(list(tmp_path.glob("triorelay-flight-*.mcap"))) == 1


# -- what may be wrong


def test_a_relay_without_one_says_so(tmp_path: Path) -> None:
    with relay(cwd=tmp_path) as running:
        complaint = "this relay has no flight recorder: serve --flight-recorder BYTES"
        assert_one_line(run("record", "--last", "last.mcap", cwd=tmp_path), 1, complaint)
        assert not (tmp_path / "last.mcap").exists()
        running.signal(signal.SIGUSR1)
        assert "SIGUSR1 without a flight recorder" in running.wait_for("flight recorder")
        assert run("health", cwd=tmp_path).returncode == 0


def test_a_wrong_size_is_wrong_usage_here_and_for_check(tmp_path: Path) -> None:
    complaint = "a flight recorder has 65536 to 1073741824 bytes, or 0 for none, not 5"
    assert_one_line(run("serve", "--flight-recorder", "5", cwd=tmp_path), 2, f"--flight-recorder: {complaint}")
    (tmp_path / "relay.toml").write_text("flight_recorder = 5\n")
    assert_one_line(run("check", "relay.toml", cwd=tmp_path), 1, complaint)
    assert_one_line(run("record", "--last", "--for", "1", "x", cwd=tmp_path), 2, "--last writes what has been")
