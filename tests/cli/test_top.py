"""`triorelay top` as a process in a terminal."""

from __future__ import annotations

import re
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import PATIENCE, assert_one_line, command, relay, run
from tests.cli.terminal import in_terminal, program_in_terminal
from tests.cli.test_admin import answering, join

if TYPE_CHECKING:
    import socket
    from pathlib import Path

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
"""A terminal's other screen, which a full-screen program draws on."""


@pytest.mark.parametrize("how", ["q", "Q", "\x03", "SIGTERM"])
def test_it_shows_the_relay_and_quits_without_a_trace(tmp_path: Path, how: str) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, in_terminal("top", cwd=tmp_path) as terminal:
        shown = terminal.until("q quit")
        assert ENTERED in shown
        assert re.search(r"A +unix +", shown)
        a.sendall(b"Z1A2")
        terminal.until("dropped 1")
        terminal.until("A to A")
        if how == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.press(how)
        after = terminal.until(re.escape(LEFT))
        assert terminal.process.wait(PATIENCE) == 0
        assert "Traceback" not in after
        assert terminal.settings_now() == terminal.settings


def test_joins_and_leaves_appear_as_they_happen(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), in_terminal("top", cwd=tmp_path) as terminal:
        terminal.until("0 clients")
        with join(tmp_path, b"B"):
            terminal.until("B joined over unix")
        terminal.until("B left")


def send_until_closed(client: socket.socket, frames: bytes) -> None:
    client.settimeout(None)
    with suppress(OSError):
        client.sendall(frames)


def test_a_waiting_client_stands_out(tmp_path: Path) -> None:
    settings = ("--stall-timeout", "0", "--queue-bytes", "2")
    with (
        relay(*settings, cwd=tmp_path),
        join(tmp_path, b"F") as sender,
        join(tmp_path, b"S"),
        in_terminal("top", cwd=tmp_path) as terminal,
    ):
        terminal.until("2 clients")
        flood = threading.Thread(target=send_until_closed, args=[sender, b"S." * 1_000_000])
        flood.start()
        terminal.until(r" F waits for S +since \d\d:\d\d:\d\d, \d s")
    flood.join(PATIENCE)


def test_keys_sort(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, join(tmp_path, b"B") as b:
        b.sendall(b"A.")
        assert a.recv(2) == b"B."
        with in_terminal("top", "--sort", "received", cwd=tmp_path) as terminal:
            terminal.until("sorted by received")
            for key, name in (("s", "sent"), ("d", "queue"), ("w", "waiting"), ("r", "received"), ("i", "id")):
                terminal.press(key)
                terminal.until(f"sorted by {name}")


def test_a_terminal_that_changes_its_size_is_drawn_anew(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A"), in_terminal("top", cwd=tmp_path) as terminal:
        terminal.until("q quit")
        terminal.resize(20, 60)
        terminal.until("triorelay [^\n]*\r?\n")
        assert terminal.process.poll() is None


def test_a_relay_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    with relay(cwd=tmp_path) as running, in_terminal("top", cwd=tmp_path) as terminal:
        terminal.until("q quit")
        running.signal(signal.SIGTERM)
        running.end()
        terminal.until("trying again")
        with relay(cwd=tmp_path), join(tmp_path, b"N"):
            terminal.until(r"N +unix")
            terminal.press("q")
            assert terminal.process.wait(PATIENCE) == 0


def test_a_server_that_is_no_relay_is_one_line(tmp_path: Path) -> None:
    with (
        answering(tmp_path, "200 OK", "event: status\ndata: {}\n\n", "text/event-stream"),
        in_terminal("top", cwd=tmp_path) as terminal,
    ):
        terminal.until("triorelay: what answers at unix:server_socket.admin is no relay's admin endpoint")
        assert terminal.process.wait(PATIENCE) == 1


def test_without_a_relay_it_does_not_begin(tmp_path: Path) -> None:
    with in_terminal("top", cwd=tmp_path) as terminal:
        terminal.until("triorelay: no relay answers at unix:server_socket.admin: No such file or directory")
        assert terminal.process.wait(PATIENCE) == 1


def test_without_a_terminal_it_is_wrong_usage(tmp_path: Path) -> None:
    assert_one_line(run("top", cwd=tmp_path), 2, "top needs a terminal")


def test_on_a_terminal_that_only_prints_it_is_wrong_usage(tmp_path: Path) -> None:
    with program_in_terminal(command("top"), cwd=tmp_path, settings={"TERM": "dumb"}) as terminal:
        terminal.until("top needs a terminal that can move its cursor")
        assert terminal.process.wait(PATIENCE) == 2
