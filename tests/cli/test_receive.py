"""`receive` as a process."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.clients import client, finish, lines_until
from tests.cli.processes import assert_one_line, relay, run
from triorelay.protocol import address_frames, encode_message

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import RelayProcess

WAIT = ("--wait", str(processes.PATIENCE))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", "A 0x00\nA 0x0a\nA 1\nA 0xff\n"),
        ("raw", "\0\n1\xff"),
        ("json", "".join(f'{{"id": 65, "name": "A", "data": "{data}"}}\n' for data in ("00", "0a", "31", "ff"))),
    ],
)
def test_formats(place: Path, form: str, expected: str) -> None:
    with client("receive", "--id", "B", "--count", "4", "--format", form, cwd=place) as receiver:
        with client("send", "--id", "A", *WAIT, "B", "-", cwd=place) as sender:
            assert sender.stdin is not None
            sender.stdin.write(b"\0\n1\xff")
            assert finish(sender)[0] == 0
        assert finish(receiver) == (0, expected.encode("latin-1"), b"")
    if form == "json":
        assert [json.loads(line)["id"] for line in expected.splitlines()] == [65] * 4


def test_text_is_the_default_and_count_cuts_what_is_too_much(place: Path) -> None:
    with client("receive", "--id", "B", "-n", "2", cwd=place) as receiver:
        assert run("send", "--id", "A", *WAIT, "B", "123", cwd=place).returncode == 0
        assert finish(receiver) == (0, b"A 1\nA 2\n", b"")


def test_lines_come_as_frames_arrive(place: Path) -> None:
    with client("receive", "--id", "B", cwd=place) as receiver:
        for text in ("1", "2"):
            assert run("send", "--id", "A", *WAIT, "B", text, cwd=place).returncode == 0
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == f"A {text}\n".encode()


def test_the_end_of_the_relay_gets_one_line_and_exit_1(running: RelayProcess, place: Path) -> None:
    with client("receive", "--id", "B", cwd=place) as receiver:
        running.wait_for("client joined")
        running.signal(signal.SIGTERM)
        assert finish(receiver) == (1, b"", b"triorelay: the connection to the relay ended: draining\n")


def test_a_reader_that_goes_away_ends_it_without_a_word(running: RelayProcess, place: Path) -> None:
    with client("receive", "--id", "B", cwd=place) as receiver:
        running.wait_for("client joined")
        assert receiver.stdout is not None
        receiver.stdout.close()
        assert run("send", "--id", "A", "B", "1", cwd=place).returncode == 0
        assert receiver.wait() == 1
        assert receiver.stderr is not None
        assert receiver.stderr.read() == b""


@pytest.mark.parametrize("words", [["-n", "0"], ["-n", "x"], ["--format", "xml"], ["-i", "AB"]], ids=repr)
def test_wrong_usage_gets_one_line_and_exit_2(tmp_path: Path, words: list[str]) -> None:
    assert_one_line(run("receive", *words, cwd=tmp_path), 2, r"^triorelay: .*see triorelay receive --help")


def send_messages(place: Path, *payloads: bytes, to: bytes = b"B", by: bytes = b"A") -> None:
    """Send messages as the protocol has them, from a socket of the test's own."""
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(place / "server_socket"))
        sender.sendall(by + b"\x81")
        assert sender.recv(2, socket.MSG_WAITALL) == by + b"\0"
        sender.sendall(address_frames(to[0], b"".join(map(encode_message, payloads))))


class TestMessages:
    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ("text", 'A hello\nA \nA {"left": 30}\nA c3\nA 6c696e650a\n'),
            ("raw", 'hello{"left": 30}\xc3line\n'),
        ],
    )
    def test_text_where_it_is_printable_and_else_hex(
        self, running: RelayProcess, place: Path, form: str, expected: str
    ) -> None:
        with client("receive", "-i", "B", "--messages", "-n", "5", "--format", form, cwd=place) as receiver:
            running.wait_for("client joined id=B")
            send_messages(place, b"hello", b"", b'{"left": 30}', b"\xc3", b"line\n")
            assert finish(receiver) == (0, expected.encode("latin-1"), b"")

    def test_json_has_the_bytes_and_the_text_where_it_is_text(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "-i", "B", "--messages", "-n", "2", "--format", "json", cwd=place) as receiver:
            running.wait_for("client joined id=B")
            send_messages(place, "gr\u00fc\u00df\n".encode(), b"\xff\x00")
            code, output, _ = finish(receiver)
        assert code == 0
        assert [json.loads(line) for line in output.splitlines()] == [
            {"id": 65, "name": "A", "data": "6772c3bcc39f0a", "text": "gr\u00fc\u00df\n"},
            {"id": 65, "name": "A", "data": "ff00"},
        ]

    def test_a_message_that_send_sent_arrives(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "-i", "B", "--messages", "-n", "1", cwd=place) as receiver:
            sent = run("send", "-i", "A", *WAIT, "--message", "B", "two words", cwd=place)
            assert (sent.returncode, sent.stdout, sent.stderr) == (0, "", "")
            assert finish(receiver) == (0, b"A two words\n", b"")

    def test_each_line_of_standard_input_is_a_message(self, place: Path) -> None:
        (place / "lines").write_bytes(b"one\n\nthree\xff\nno end")
        with client("receive", "-i", "B", "--messages", "-n", "4", cwd=place) as receiver:
            with client("send", "-i", "A", *WAIT, "--message", "B", "-", cwd=place, stdin=place / "lines") as sender:
                assert finish(sender) == (0, b"", b"")
            assert finish(receiver) == (0, b"A one\nA \nA 7468726565ff\nA no end\n", b"")

    def test_a_line_longer_than_a_message_may_be_gets_one_line(self, running: RelayProcess, place: Path) -> None:
        (place / "long").write_bytes(bytes(1 << 21))
        with client("receive", "-i", "B", "--messages", cwd=place):
            running.wait_for("client joined id=B")
            with client("send", "-i", "A", "--message", "B", "-", cwd=place, stdin=place / "long") as sender:
                code, _, complaint = finish(sender)
        assert code == 1
        assert complaint == b"triorelay: a line of standard input is longer than a message may be: 1048576 bytes\n"

    def test_a_message_to_an_absent_client_gets_one_line(self, place: Path) -> None:
        assert_one_line(run("send", "-i", "A", "--message", "B", "x", cwd=place), 1, "holds the id B; --wait SECONDS")


class TestFrom:
    def test_only_what_these_clients_send_is_printed_and_counted(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "-i", "B", "--from", "C", "--from", "0x44", "-n", "2", cwd=place) as receiver:
            running.wait_for("client joined id=B")
            for id, text in (("A", "111"), ("C", "2"), ("A", "3"), ("D", "4"), ("C", "5")):
                assert run("send", "-i", id, "B", text, cwd=place).returncode in (0, 1)
            assert finish(receiver) == (0, b"C 2\nD 4\n", b"")

    def test_messages_too(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "-i", "B", "--messages", "--from", "C", "-n", "1", cwd=place) as receiver:
            running.wait_for("client joined id=B")
            send_messages(place, b"not this")
            send_messages(place, b"but this", by=b"C")
            assert finish(receiver) == (0, b"C but this\n", b"")


class TestTimeout:
    def test_when_nothing_comes_it_ends_with_one_line_and_exit_1(self, place: Path) -> None:
        result = run("receive", "-i", "B", "--timeout", "0.2", cwd=place)
        assert_one_line(result, 1, r"^triorelay: nothing came for 0\.2 s$")

    def test_what_comes_gives_it_more_time(self, running: RelayProcess, place: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect(str(place / "server_socket"))
            sender.sendall(b"A\x81")
            assert sender.recv(2, socket.MSG_WAITALL) == b"A\0"
            with client("receive", "-i", "B", "--timeout", "3", cwd=place) as receiver:
                running.wait_for("client joined id=B")
                sender.sendall(b"B1")
                assert finish(receiver) == (1, b"A 1\n", b"triorelay: nothing came for 3 s\n")

    def test_what_another_client_sends_does_not(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "-i", "B", "--from", "C", "--timeout", "0.5", cwd=place) as receiver:
            running.wait_for("client joined id=B")
            with socket.socket(socket.AF_UNIX) as sender:
                sender.connect(str(place / "server_socket"))
                sender.sendall(b"A\x80")
                while receiver.poll() is None:
                    with suppress(BrokenPipeError):
                        sender.sendall(b"B.")
                    select.select([], [], [], 0.1)
            assert finish(receiver) == (1, b"", b"triorelay: nothing came for 0.5 s\n")

    @pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
    def test_a_time_that_cannot_be_is_wrong_usage(self, tmp_path: Path, seconds: str) -> None:
        assert_one_line(run("receive", "--timeout", seconds, cwd=tmp_path), 2, "--timeout")


class TestTime:
    ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"

    def test_each_line_begins_with_the_time(self, running: RelayProcess, place: Path) -> None:
        before = datetime.now().astimezone()
        with client("receive", "-i", "B", "--time", "-n", "2", cwd=place) as receiver:
            running.wait_for("client joined id=B")
            assert run("send", "-i", "A", "B", "12", cwd=place).returncode == 0
            code, output, _ = finish(receiver)
        assert code == 0
        found = re.fullmatch(f"({self.ISO}) A 1\n{self.ISO} A 2\n", output.decode())
        assert found is not None, output
        assert before - timedelta(seconds=1) < datetime.fromisoformat(found[1]) <= datetime.now().astimezone()

    def test_in_json_it_is_a_field(self, running: RelayProcess, place: Path) -> None:
        words = ("receive", "-i", "B", "--time", "--messages", "--format", "json", "-n", "1")
        with client(*words, cwd=place) as receiver:
            running.wait_for("client joined id=B")
            send_messages(place, b"hello")
            facts = json.loads(finish(receiver)[1])
        assert re.fullmatch(self.ISO, facts.pop("time"))
        assert facts == {"id": 65, "name": "A", "data": "68656c6c6f", "text": "hello"}

    def test_it_goes_with_lines(self, tmp_path: Path) -> None:
        assert_one_line(run("receive", "--time", "--format", "raw", cwd=tmp_path), 2, "--time goes with lines")


class TestShared:
    def test_each_that_shares_the_id_gets_a_copy(self, running: RelayProcess, place: Path) -> None:
        words = ("receive", "-i", "N", "--shared", "-n", "2")
        with client(*words, cwd=place) as first, client(*words, "--lossy", cwd=place) as second:
            running.wait_for("client joined id=N")
            running.wait_for("client joined id=N")
            assert run("send", "-i", "A", "N", "12", cwd=place).returncode == 0
            assert finish(first) == finish(second) == (0, b"A 1\nA 2\n", b"")

    def test_who_says_how_many_share_it(self, running: RelayProcess, place: Path) -> None:
        words = ("receive", "-i", "N", "--shared")
        with client(*words, cwd=place), client(*words, cwd=place), client("receive", "-i", "B", cwd=place):
            running.wait_for("client joined id=B")
            while (there := run("who", cwd=place).stdout) != "B\nN (shared by 2)\n":
                assert there in ("B\n", "B\nN\n")

    def test_an_id_that_is_shared_is_not_given_to_one_alone(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "-i", "N", "--shared", cwd=place):
            running.wait_for("client joined id=N")
            assert_one_line(run("receive", "-i", "N", cwd=place), 1, "the id is taken")

    def test_it_goes_with_an_id(self, tmp_path: Path) -> None:
        assert_one_line(run("receive", "--shared", cwd=tmp_path), 2, "--shared goes with --id")


class TestReconnect:
    def test_it_comes_back_after_a_restart_and_says_so(self, tmp_path: Path) -> None:
        with relay(cwd=tmp_path) as first, client("receive", "-i", "B", "--reconnect", cwd=tmp_path) as receiver:
            assert receiver.stderr is not None
            first.wait_for("client joined id=B")
            first.signal(signal.SIGTERM)
            lost = b"triorelay: the connection to the relay ended: draining; trying again\n"
            assert receiver.stderr.readline() == lost
            first.end()
            with relay(cwd=tmp_path):
                assert receiver.stderr.readline() == b"triorelay: connected again\n"
                assert run("send", "-i", "A", "B", "1", cwd=tmp_path).returncode == 0
                assert receiver.stdout is not None
                assert receiver.stdout.readline() == b"A 1\n"
                receiver.send_signal(signal.SIGINT)
                assert finish(receiver)[0] == 130

    def test_without_a_relay_it_does_not_begin(self, tmp_path: Path) -> None:
        assert_one_line(run("receive", "--reconnect", cwd=tmp_path), 1, "cannot connect to unix:server_socket")

    def test_a_watcher_gets_the_loss_and_the_clients_that_come_again(self, tmp_path: Path) -> None:
        with relay(cwd=tmp_path) as first, client("receive", "-i", "B", cwd=tmp_path):
            first.wait_for("client joined id=B")
            with client("who", "--watch", "--reconnect", cwd=tmp_path) as watcher:
                assert lines_until(watcher, "B\n") == ["B\n"]
                first.signal(signal.SIGTERM)
                assert lines_until(watcher, "- B\n") == ["- B\n"]
                first.end()
                with relay(cwd=tmp_path), client("receive", "-i", "C", cwd=tmp_path):
                    assert lines_until(watcher, "+ C\n") == ["+ C\n"]
                    watcher.send_signal(signal.SIGINT)
                    code, _, complaint = finish(watcher)
        assert code == 130
        assert complaint.splitlines()[:2] == [
            b"triorelay: the connection to the relay ended: draining; trying again",
            b"triorelay: connected again",
        ]
