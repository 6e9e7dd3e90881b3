"""The commands that ask the admin endpoint, as processes, against a relay that is one too."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.cli.processes import PATIENCE, assert_one_line, command, environment, relay, run, run_here
from tests.cli.terminal import program_in_terminal
from tests.watchdog import watched
from triorelay.cli import _admin
from triorelay.protocol import address_frames, encode_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN = "a token of good length"


def join(path: Path, id: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path / "server_socket"))
    client.sendall(id + b"\x81")
    assert client.recv(2) == id + b"\0"
    return client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def following(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until a signal, for the length of the block."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment({"PYTHONUNBUFFERED": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with watched(process):
        yield process


def test_by_default_the_commands_find_a_relay_in_the_same_directory(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a:
        assert run("health", cwd=tmp_path).stdout == "ok\n"
        a.sendall(b"Z1Z2")
        a.sendall(b"A.")
        assert a.recv(2) == b"A."
        shown = run("status", cwd=tmp_path).stdout
        assert re.search(r"^A +unix .*uid:\d+ .* 3 +1 ", shown, re.MULTILINE), shown
        assert "dropped 2  no route  A to Z" in shown
        status = json.loads(run("status", "--json", cwd=tmp_path).stdout)
        assert [client["name"] for client in status["clients"]] == ["A"]
        closed = run("close", "A", cwd=tmp_path)
        assert (closed.returncode, closed.stdout) == (0, "closed A\n")
        assert a.recv(1) == b""


@pytest.mark.parametrize("place", ["elsewhere", "unix:elsewhere", "PORT", "127.0.0.1:PORT", "localhost:PORT"])
def test_the_endpoint_is_where_the_option_says(tmp_path: Path, place: str) -> None:
    place = place.replace("PORT", str(free_port()))
    with relay("--admin", place, cwd=tmp_path):
        assert run("health", "--admin", place, cwd=tmp_path).returncode == 0
        assert run("health", cwd=tmp_path, settings={"TRIORELAY_ADMIN": place}).returncode == 0
        # The one beside the relay's own path stays.
        assert run("health", cwd=tmp_path).returncode == 0
    (tmp_path / "server_socket.admin").unlink()
    with relay("--admin", place, "--admin", "none", cwd=tmp_path):
        assert run("health", "--admin", place, cwd=tmp_path).returncode == 0
        assert not (tmp_path / "server_socket.admin").exists()


def test_it_may_be_at_several_places_and_a_token_is_for_those_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token of good length")
    port = str(free_port())
    settings = {"TRIORELAY_ADMIN": f"elsewhere, {port}"}
    with relay("--admin-token-file", "token", cwd=tmp_path, settings=settings):
        assert run("status", cwd=tmp_path).returncode == 0
        for place in ("elsewhere", port):
            assert_one_line(run("status", "--admin", place, cwd=tmp_path), 1, "a token is needed")
            assert run("status", "--admin", place, "--token-file", "token", cwd=tmp_path).returncode == 0
        # The commands ask the first one.
        assert run("status", "--token-file", "token", cwd=tmp_path, settings=settings).returncode == 0
    with relay("--admin-token-file", "token", cwd=tmp_path):
        assert_one_line(run("status", cwd=tmp_path), 1, "a token is needed")


def test_a_relay_may_have_none(tmp_path: Path) -> None:
    with relay("--admin", "none", "--handover", "none", cwd=tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"server_socket", "server_socket.lock"}
        assert_one_line(run("health", cwd=tmp_path), 1, "no relay answers at unix:server_socket.admin: No such file")


def test_a_path_that_leaves_no_room_for_the_endpoint_s_is_a_relay_without_one(tmp_path: Path) -> None:
    name = "s" * 104
    with relay("--unix", name, cwd=tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.lock"}


def test_a_socket_without_a_process_is_no_relay(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "server_socket.admin"))
    for words in (["status"], ["health"], ["close", "A"], ["monitor"]):
        assert_one_line(run(*words, cwd=tmp_path), 1, "no relay answers at .*: Connection refused; .*--admin")


def test_a_port_without_a_relay_gets_the_error_of_the_system(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for words in (["status"], ["health"], ["close", "A"], ["monitor"]):
        complaint = f"no relay answers at tcp:127.0.0.1:{port}: Connection refused; name"
        assert_one_line(run(*words, "--admin", str(port), cwd=tmp_path), 1, complaint)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["close", "AB"], "an id is one printable"),
        (["close"], "Missing argument"),
        (["monitor", "--from", "0x00"], "an id is one printable"),
        (["status", "--admin", "tls:localhost:1"], "no TLS"),
        (["status", "--admin", "70000"], "a port is a number from 0 to 65535"),
        (["serve", "--admin", "0.0.0.0:9736"], "--admin: .* can be reached by others: .*--admin-token-file"),
        (["serve", "--admin", "tls:localhost:1"], "--admin: .* no TLS"),
        (["serve", "--admin", "localhost:x"], "--admin: a port is a number"),
    ],
)
def test_a_mistake_is_wrong_usage(tmp_path: Path, words: list[str], complaint: str) -> None:
    assert_one_line(run_here(*words, cwd=tmp_path), 2, complaint)


def test_an_absent_client_cannot_be_closed(tmp_path: Path) -> None:
    with relay(cwd=tmp_path):
        assert_one_line(run("close", "A", cwd=tmp_path), 1, "no client holds the id A")


def test_an_address_in_use_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--admin", str(port), cwd=tmp_path)
    assert_one_line(result, 1, f"admin endpoint: cannot listen on tcp 127.0.0.1:{port}: Address already in use")


def test_a_token_is_asked_for_and_taken_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "wrong").write_text("a token of other length\n")
    (tmp_path / "empty").write_text("\n")
    where = ("--admin", str(free_port()))
    with relay(*where, "--admin-token-file", "token", cwd=tmp_path):
        assert run("health", *where, cwd=tmp_path).returncode == 0
        assert_one_line(run("status", *where, cwd=tmp_path), 1, "a token is needed: .*--token-file")
        assert_one_line(run("status", *where, "--token-file", "wrong", cwd=tmp_path), 1, "wrong token")
        assert_one_line(
            run("status", *where, "--token-file", "empty", cwd=tmp_path), 1, "--token-file: a token has 1 to 255 bytes"
        )
        assert_one_line(
            run("status", *where, "--token-file", "no", cwd=tmp_path), 1, "--token-file: cannot read no: No such file"
        )
        assert run("status", *where, "--token-file", "token", cwd=tmp_path).returncode == 0


def test_a_token_file_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    result = run("serve", "--admin-token-file", "no", cwd=tmp_path)
    assert_one_line(result, 1, "^triorelay: --admin-token-file: cannot read no: No such file")


def test_monitor_shows_frames_as_they_pass(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, join(tmp_path, b"B") as b:
        with following("monitor", "--from", "A", cwd=tmp_path) as monitor:
            assert monitor.stdout is not None
            line = _first_line(monitor, lambda: a.sendall(b"B\x01Bx"))
            assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} A to B  01 78  \.x\n", line)
        with following("monitor", "--json", cwd=tmp_path) as monitor:
            line = _first_line(monitor, lambda: b.sendall(b"A."))
            assert json.loads(line)["data"] == "2e"


def _first_line(monitor: subprocess.Popen[str], send: Callable[[], object]) -> str:
    """What a monitor shows first; frames are sent until one of them is seen, because nothing says when it looks."""
    assert monitor.stdout is not None
    while not select.select([monitor.stdout], [], [], 0.1)[0]:
        send()
    return monitor.stdout.readline()


def test_monitor_says_so_when_the_relay_ends(tmp_path: Path) -> None:
    with relay(cwd=tmp_path) as running, join(tmp_path, b"A") as a, following("monitor", cwd=tmp_path) as monitor:
        _first_line(monitor, lambda: a.sendall(b"Z."))
        a.close()
        running.signal(signal.SIGTERM)
        _, complaint = monitor.communicate(timeout=PATIENCE)
    assert monitor.returncode == 1
    assert complaint.splitlines() == ["triorelay: the relay at unix:server_socket.admin ended the connection"]


def test_monitor_ends_with_one_line_when_it_is_interrupted(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, following("monitor", cwd=tmp_path) as monitor:
        _first_line(monitor, lambda: a.sendall(b"Z."))
        monitor.send_signal(signal.SIGINT)
        _, complaint = monitor.communicate(timeout=PATIENCE)
        assert (monitor.returncode, complaint.strip()) == (130, "triorelay: interrupted")


def test_monitor_puts_messages_together(tmp_path: Path) -> None:
    def some_messages() -> bytes:
        whole = [address_frames(66, encode_message(payload)) for payload in (b"hello", b"\xff\n")]
        return bytes(b"".join([*whole, address_frames(66, b"no message\0")]))

    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, join(tmp_path, b"B"):
        with following("monitor", "--messages", cwd=tmp_path) as monitor:
            assert monitor.stdout is not None
            assert re.fullmatch(f"{clock} A to B  hello\n", _first_line(monitor, lambda: a.sendall(some_messages())))
            assert re.fullmatch(f"{clock} A to B  ff0a\n", monitor.stdout.readline())
            assert re.fullmatch(rf"{clock} A to B  \(1 not a whole message\)\n", monitor.stdout.readline())
        with following("monitor", "--messages", "--format", "json", cwd=tmp_path) as monitor:
            assert monitor.stdout is not None
            first = json.loads(_first_line(monitor, lambda: a.sendall(some_messages())))
            assert first.pop("time") > 1e9
            assert first == {"source": 65, "destination": 66, "data": "68656c6c6f", "text": "hello"}
            assert json.loads(monitor.stdout.readline())["data"] == "ff0a"
            assert json.loads(monitor.stdout.readline())["discarded"] == 1


def test_monitor_comes_back_after_a_restart_and_says_so(tmp_path: Path) -> None:
    with relay(cwd=tmp_path) as first, following("monitor", "--reconnect", cwd=tmp_path) as monitor:
        assert monitor.stdout is not None
        assert monitor.stderr is not None
        with join(tmp_path, b"A") as a:
            _first_line(monitor, lambda: a.sendall(b"A."))
        first.signal(signal.SIGTERM)
        first.end()
        assert re.fullmatch(r"triorelay: .*; trying again\n", monitor.stderr.readline())
        with relay(cwd=tmp_path), join(tmp_path, b"B") as b:
            assert monitor.stderr.readline() == "triorelay: connected again\n"
            while " B to B " not in _first_line(monitor, lambda: b.sendall(b"B.")):
                pass
            monitor.send_signal(signal.SIGINT)
            _, complaint = monitor.communicate(timeout=PATIENCE)
            assert (monitor.returncode, complaint.strip()) == (130, "triorelay: interrupted")


def test_monitor_that_never_found_a_relay_does_not_wait_for_one(tmp_path: Path) -> None:
    assert_one_line(run("monitor", "--reconnect", cwd=tmp_path), 1, "no relay answers at unix:server_socket.admin")


def test_monitor_does_not_come_back_to_something_that_is_no_relay(tmp_path: Path) -> None:
    with answering(tmp_path, "200 OK", "<html>", "text/html"):
        assert_one_line(run("monitor", "--reconnect", cwd=tmp_path), 1, "is no relay's admin endpoint")


def test_status_is_not_cut_where_it_is_not_on_a_terminal(tmp_path: Path) -> None:
    name = "p" * 60
    (tmp_path / "relay.toml").write_text(f"[principals.{name}]\nuid = {os.getuid()}\n")
    settings = {"COLUMNS": "40"}
    with (
        relay("--config", "relay.toml", "--admin", "server_socket.admin", cwd=tmp_path),
        join(tmp_path, b"A") as a,
    ):
        assert a.fileno() >= 0
        shown = run("status", cwd=tmp_path, settings=settings).stdout
        (row,) = re.findall(r"^A +unix .*$", shown, re.MULTILINE)
        assert name in row
        assert "\u2026" not in shown


def test_a_terminal_without_a_width_shows_the_status_whole(tmp_path: Path) -> None:
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        program_in_terminal(command("status"), cwd=tmp_path, settings={"COLUMNS": "0"}) as terminal,
    ):
        assert a.fileno() >= 0
        terminal.until("waits for")
        assert terminal.process.wait(PATIENCE) == 0


def test_a_server_that_is_no_admin_endpoint_is_recognized(tmp_path: Path) -> None:
    with relay(cwd=tmp_path):
        result = run("status", "--admin", "server_socket", cwd=tmp_path)
    assert_one_line(result, 1, "the connection to the relay at unix:server_socket was lost|does not answer")


@contextmanager
def answering(path: Path, status: str, body: str, type: str = "application/json") -> Iterator[None]:
    """Some HTTP server where the admin endpoint is looked for, for the length of the block."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {type}\r\nContent-Length: {len(body)}\r\nLocation: /\r\n\r\n"

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                with client:
                    client.recv(65536)
                    client.sendall(f"{head}{body}".encode())

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "server_socket.admin"))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def test_monitor_says_so_when_it_ended_because_its_output_was_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = '{"time": 1, "source": 65, "destination": 66, "data": "2e"}\n'
    with answering(tmp_path, "200 OK", line, "application/jsonl"):
        words = ["--admin", f"unix:{tmp_path}/server_socket.admin"]
        prompt = CliRunner().invoke(_admin.monitor, words)
        assert str(prompt.exception).endswith("ended the connection")
        # Whatever time its reader takes is too long now.
        monkeypatch.setattr(_admin, "UNREAD_SECONDS", 0)
        slow = CliRunner().invoke(_admin.monitor, words)
        assert str(slow.exception).endswith("connection: nothing it showed was read for 0 s, and the relay waits 0")


COMMANDS = (["status"], ["status", "--json"], ["monitor"], ["health"], ["close", "A"])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("status", "type", "complaint"),
    [
        ("200 OK", "text/html", "^triorelay: what answers at unix:server_socket.admin is no relay's admin endpoint"),
        ("302 Found", "text/html", "HTTP status 302: what answers"),
        ("302 Found", "application/json", "HTTP status 302: what answers"),
        ("204 No Content", "application/json", "HTTP status 204: what answers"),
        ("404 Not Found", "application/json", "HTTP status 404: what answers"),
    ],
)
def test_what_another_server_answers_is_one_line(
    tmp_path: Path, words: list[str], status: str, type: str, complaint: str
) -> None:
    with answering(tmp_path, status, "" if status.startswith("204") else "{}\n", type):
        assert_one_line(run_here(*words, cwd=tmp_path), 1, complaint)


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["monitor"], ["health"]], ids=" ".join)
@pytest.mark.parametrize("body", ["", "{}\n", "[1]\n", "no JSON\n", '{"time": 1, "data": "x"}\n'])
def test_an_answer_that_says_nothing_of_a_relay_is_one_line(tmp_path: Path, words: list[str], body: str) -> None:
    with answering(tmp_path, "200 OK", body):
        complaint = "ended the connection" if words == ["monitor"] and not body else "what answers at"
        assert_one_line(run_here(*words, cwd=tmp_path), 1, complaint)


def test_a_relay_at_a_path_that_is_no_text_is_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"socket\xff")
    admin = ("--admin", "admin")
    with relay("--unix", name, *admin, cwd=tmp_path):
        result = run("status", *admin, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        # A backslash in a name is escaped in its turn.
        assert "unix:socket\\\\xff" in result.stdout
        assert json.loads(run("status", "--json", *admin, cwd=tmp_path).stdout)["listeners"] == ["unix:socket\\xff"]


def test_a_relay_without_descriptors_left_continues_once_there_are_some(tmp_path: Path) -> None:
    port = free_port()
    limited = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh", *command("serve", "--admin", str(port))]
    with subprocess.Popen(limited, cwd=tmp_path, env=environment({}), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while "ready" not in process.stderr.readline():
                pass
            with join(tmp_path, b"A") as a, ExitStack() as stack:
                for _ in range(40):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                while "cannot accept" not in process.stderr.readline():
                    pass
                a.sendall(b"A.")
                assert a.recv(2) == b"A."
            assert run("health", "--admin", str(port), cwd=tmp_path).returncode == 0
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0
    assert rest.count("cannot accept") <= 60
    assert not os.path.exists(tmp_path / "server_socket")
