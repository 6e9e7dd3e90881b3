"""The examples in Python."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import run
from tests.examples.scene import end, line_like, next_line, python, running, say, tcp_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import RelayProcess


@pytest.mark.usefixtures("relay")
def test_hello(tmp_path: Path) -> None:
    with running(python("hello.py"), cwd=tmp_path) as hello:
        code, output, complaint = end(hello)
    assert (code, complaint) == (0, "")
    assert re.fullmatch(r"A says \w+\n", output)


@pytest.mark.usefixtures("relay")
def test_chat_among_three(tmp_path: Path) -> None:
    with running(python("chat.py", "a"), cwd=tmp_path) as a:
        assert next_line(a) == "here: nobody"
        with running(python("chat.py", "b"), cwd=tmp_path) as b, running(python("chat.py", "c"), cwd=tmp_path) as c:
            assert {next_line(a), next_line(a)} == {"b comes", "c comes"}
            say(a, "hello, you two")
            assert line_like(b, "a: .*") == "a: hello, you two"
            assert line_like(c, "a: .*") == "a: hello, you two"
            say(b, "hello")
            assert line_like(a, "b: .*") == "b: hello"
            assert end(c)[0] == 0
            assert line_like(a, "c goes")
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
            assert line_like(display, "S: gone")
            display.send_signal(signal.SIGINT)
            assert end(display)[::2] == (0, "")


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


def test_a_client_of_plain_sockets_is_told_no(relay: RelayProcess, tmp_path: Path) -> None:
    with running(python("plain_sockets.py", tcp_port(relay), "P", "hi"), cwd=tmp_path) as first:
        assert next_line(first) == "P h"
        with running(python("plain_sockets.py", tcp_port(relay), "P", "hi"), cwd=tmp_path) as second:
            assert end(second) == (1, "", "the relay says no, code 1\n")
