"""The examples in Python."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

import triorelay
from tests.cli import processes
from tests.cli.processes import PATIENCE, run
from tests.examples.scene import end, line_like, next_line, python, running, say, tcp_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import RelayProcess


@pytest.mark.usefixtures("relay")
def test_hello(tmp_path: Path) -> None:
    with running(python("hello.py"), cwd=tmp_path) as hello:
        code, output, complaint = end(hello)
    assert (code, complaint) == (0, "")
    assert output == "A says 1\nA says a whole message\nb'42'\n"


@pytest.mark.usefixtures("relay")
def test_chat_among_three(tmp_path: Path) -> None:
    with running(python("chat.py", "a"), cwd=tmp_path) as a:
        assert next_line(a) == "connected: none"
        with running(python("chat.py", "b"), cwd=tmp_path) as b, running(python("chat.py", "c"), cwd=tmp_path) as c:
            assert {next_line(a), next_line(a)} == {"b joins", "c joins"}
            say(a, "hello, you two")
            assert line_like(b, "a: .*") == "a: hello, you two"
            assert line_like(c, "a: .*") == "a: hello, you two"
            say(b, "hello")
            assert line_like(a, "b: .*") == "b: hello"
            assert end(c)[0] == 0
            assert line_like(a, "c leaves")
            assert end(b)[::2] == (0, "")
        assert end(a)[::2] == (0, "")


@pytest.mark.usefixtures("relay")
def test_requests_and_their_answers(tmp_path: Path) -> None:
    with running(python("answer.py"), cwd=tmp_path) as answering:
        with running(python("ask.py", "one", "two", "three"), cwd=tmp_path) as asking:
            code, output, complaint = end(asking)
        assert (code, complaint) == (0, "")
        assert sorted(output.splitlines()) == ["one -> ONE", "three -> THREE", "two -> TWO"]
        answering.send_signal(signal.SIGINT)
        assert end(answering) == (0, "", "")


@pytest.mark.usefixtures("relay")
def test_displays_that_share_an_id(tmp_path: Path) -> None:
    with running(python("displays.py"), cwd=tmp_path) as displays:
        code, output, complaint = end(displays)
    assert (code, complaint) == (0, "")
    assert set(output.splitlines()) == {f"{kind} display: S measures 21.5 degrees" for kind in ("careful", "lossy")}


@pytest.mark.usefixtures("relay")
def test_a_sensor_and_two_displays(tmp_path: Path) -> None:
    with (
        running(python("display.py", "1"), cwd=tmp_path) as one,
        running(python("display.py", "2"), cwd=tmp_path) as two,
    ):
        with running(python("sensor.py"), cwd=tmp_path) as sensor:
            for display in (one, two, one, two):
                assert line_like(display, r"S: (1[5-9]|2[0-5]) C")
            sensor.send_signal(signal.SIGINT)
            assert end(sensor) == (0, "", "")
        for display in (one, two):
            assert line_like(display, "S left")
            display.send_signal(signal.SIGINT)
            assert end(display)[::2] == (0, "")


@pytest.mark.usefixtures("relay")
def test_what_users_of_other_systems_look_for(tmp_path: Path) -> None:
    with running(python("coming_from.py"), cwd=tmp_path) as program:
        code, output, complaint = end(program)
    assert (code, complaint) == (0, "")
    beginnings = [
        *("S measures", "published: ('P', b'1') ('P', b'1')", "called: 42", "S is here: True", "S left"),
        *("delivered: ('P', b'1')", "not delivered", "streamed: any"),
    ]
    for line, beginning in zip(output.splitlines(), beginnings, strict=True):
        assert line.startswith(beginning)


async def test_every_line_is_delivered_although_its_relay_is_killed(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/server_socket"
    serve = ("--unix", "server_socket", "--admin", "none")
    with ExitStack() as stack, trio.fail_after(PATIENCE):
        relay = stack.enter_context(processes.relay(*serve, cwd=tmp_path))
        sender = stack.enter_context(running(python("deliver.py", "P", address), cwd=tmp_path))
        for number in range(1, 4):
            async with triorelay.open_client(address, id="P") as peer, peer.messages() as messages:
                await peer.wait_for("D")
                say(sender, f"line {number}")
                assert await messages.receive() == ("D", b"%d line %d" % (2 * number - 1, number))
                assert await trio.to_thread.run_sync(next_line, sender) == f"delivered {2 * number - 1}"
            # This relay answers no flush any more, so what is sent to it has to be repeated.
            relay.signal(signal.SIGSTOP)
            say(sender, "once more")
            relay.signal(signal.SIGKILL)
            relay = stack.enter_context(processes.relay(*serve, cwd=tmp_path))
            async with triorelay.open_client(address, id="P") as peer, peer.messages() as messages:
                assert await messages.receive() == ("D", b"%d once more" % (2 * number))
                assert await trio.to_thread.run_sync(next_line, sender) == f"delivered {2 * number}"


def test_a_client_of_plain_sockets(relay: RelayProcess, tmp_path: Path) -> None:
    with running(python("plain_sockets.py", tcp_port(relay), "P", "hi"), cwd=tmp_path) as plain:
        assert [next_line(plain), next_line(plain)] == ["P h", "P i"]
        assert run("send", "--id", "A", "P", "!", cwd=tmp_path).returncode == 0
        assert next_line(plain) == "A !"
        relay.signal(signal.SIGTERM)
        assert end(plain) == (0, "", "")


def test_a_client_of_plain_sockets_shows_any_name(relay: RelayProcess, tmp_path: Path) -> None:
    with running(python("plain_sockets.py", tcp_port(relay), "P", "h"), cwd=tmp_path) as plain:
        assert next_line(plain) == "P h"
        assert run("send", "--id", "0xff", "P", "!", cwd=tmp_path).returncode == 0
        assert next_line(plain) == "\xff !"


def test_a_client_of_plain_sockets_reports_a_refusal(relay: RelayProcess, tmp_path: Path) -> None:
    with running(python("plain_sockets.py", tcp_port(relay), "P", "hi"), cwd=tmp_path) as first:
        assert next_line(first) == "P h"
        with running(python("plain_sockets.py", tcp_port(relay), "P", "hi"), cwd=tmp_path) as second:
            assert end(second) == (1, "", "the relay refused, code 1\n")


@pytest.mark.usefixtures("relay")
def test_a_script_without_trio(tmp_path: Path) -> None:
    with (
        running(python("answer.py"), cwd=tmp_path) as answering,
        running(python("blocking.py"), cwd=tmp_path) as script,
    ):
        assert end(script) == (0, "HELLO\nS a note to myself\n", "")
        answering.send_signal(signal.SIGINT)
        assert end(answering) == (0, "", "")
