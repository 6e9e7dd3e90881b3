"""`call` and `answer` as processes."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.clients import client, finish
from tests.cli.processes import assert_one_line, run
from tests.wire.client import Client, frames
from triorelay.protocol import (
    CallKind,
    CallMessage,
    Event,
    EventCode,
    FailReason,
    FrameReader,
    MessageReader,
    decode_call,
    encode_message,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

WAIT = ("--wait", str(processes.PATIENCE))


def answering(place: Path, *options: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return client("answer", "--id", "B", *options, cwd=place)


@pytest.fixture
def doubling(place: Path) -> Iterator[Path]:
    """A relay with a B that doubles numbers."""
    with answering(place, "--exec", "read n; echo $((2 * n))") as process:
        called = run("call", *WAIT, "B", "1", cwd=place)
        assert called.stdout == "2\n"
        yield place
        assert process.poll() is None


def test_the_reply_is_what_the_command_writes(doubling: Path) -> None:
    called = run("call", "B", "21", cwd=doubling)
    assert (called.returncode, called.stdout, called.stderr) == (0, "42\n", "")


def test_without_a_command_the_reply_is_the_payload_byte_for_byte(place: Path) -> None:
    data = os.urandom(100_000)
    (place / "question").write_bytes(data)
    with answering(place), client("call", *WAIT, "B", "-", cwd=place, stdin=place / "question") as caller:
        assert finish(caller) == (0, data, b"")
    with answering(place):
        assert run("call", *WAIT, "B", "text", cwd=place).stdout == "text\n"


def test_the_command_gets_the_caller_s_id(place: Path) -> None:
    with answering(place, "--exec", "echo $TRIORELAY_CALLER"):
        assert run("call", "--id", "Q", *WAIT, "B", "", cwd=place).stdout == "Q\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo first >&2; echo the last line >&2; echo >&2; exit 3", "the last line"),
        ("exit 3", "the command ended with status 3"),
        ("kill -9 $$", "the command was ended by SIGKILL"),
        ("./missing", "sh: 1: ./missing: not found"),
        ("head -c 2000000 /dev/zero", "the command wrote 2000000 bytes, and a reply has 1048571"),
    ],
)
def test_a_command_that_fails_fails_the_call_alone(place: Path, command: str, why: str) -> None:
    with answering(place, "--exec", f"read word; [ $word = fine ] && exec echo fine; {command}") as process:
        called = run("call", *WAIT, "B", "bad", cwd=place)
        assert_one_line(called, 1, f"^triorelay: the call failed: its handler failed: {why}$")
        assert run("call", "B", "fine", cwd=place).stdout == "fine\n"
        assert process.poll() is None


def test_an_absent_callee_is_one_line(place: Path) -> None:
    assert_one_line(
        run("call", "B", "x", cwd=place), 1, "no client holds the id B; --wait SECONDS waits until one does$"
    )
    assert_one_line(run("call", "--wait", "0.01", "B", "x", cwd=place), 1, r"B did not join within 0\.01 s")


def test_one_that_serves_no_calls_never_answers_and_is_given_up(place: Path) -> None:
    with client("receive", "--id", "B", cwd=place):
        called = run("call", *WAIT, "--timeout", "0.2", "B", "x", cwd=place)
    assert_one_line(called, 1, r"^triorelay: B did not answer within 0\.2 s$")


def test_more_than_a_call_has_room_for_is_one_line(place: Path) -> None:
    (place / "much").write_bytes(bytes(2 << 20))
    with client("call", "B", "-", cwd=place, stdin=place / "much") as caller:
        code, output, complaint = finish(caller)
    assert (code, output) == (1, b"")
    assert complaint == b"triorelay: a call has at most 1048571 bytes, and standard input has more\n"


def test_a_caller_that_gives_up_ends_the_command(place: Path) -> None:
    with answering(place, "--exec", "echo $$ > pid; sleep 1000 & wait"):
        run("call", *WAIT, "--timeout", "2", "B", "x", cwd=place)
        session = int((place / "pid").read_text())
        deadline = time.monotonic() + processes.PATIENCE
        while True:
            try:
                os.killpg(session, 0)
            except ProcessLookupError:
                break
            assert time.monotonic() < deadline, "the command still runs"
            time.sleep(0.01)


@pytest.mark.parametrize("gone", [False, True])
def test_calls_are_answered_although_nothing_reads_the_commands_standard_error(place: Path, gone: bool) -> None:
    with answering(place, "--exec", "head -c 200000 /dev/zero >&2; echo done") as process:
        if gone:
            assert process.stderr is not None
            process.stderr.close()
        for _ in range(3):
            assert run("call", *WAIT, "--timeout", str(processes.PATIENCE), "B", "x", cwd=place).stdout == "done\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(processes.PATIENCE) == 130


def test_what_commands_write_to_standard_error_is_shown_to_its_end(place: Path) -> None:
    with answering(place, "--exec", "echo f\xfcr >&2; echo done") as process:
        for _ in range(3):
            assert run("call", *WAIT, "B", "x", cwd=place).stdout == "done\n"
        process.send_signal(signal.SIGINT)
        code, _, complaint = finish(process)
    assert (code, complaint.count(b"f\xc3\xbcr\n")) == (130, 3)


def test_calls_beyond_those_at_once_are_refused(place: Path) -> None:
    with (
        answering(place, "--at-once", "1", "--exec", "echo > begun; read word; while [ ! -e go ]; do sleep 0.1; done"),
        client("call", *WAIT, "B", "x", cwd=place) as first,
    ):
        while not (place / "begun").exists():
            assert first.poll() is None
            time.sleep(0.01)
        assert_one_line(run("call", "B", "y", cwd=place), 1, "serves as many at once as it wants to")
        (place / "go").touch()
        assert finish(first) == (0, b"", b"")


def test_ctrl_c_ends_an_answering_client_and_its_callers_get_an_error(place: Path) -> None:
    with (
        answering(place, "--exec", "echo > begun; sleep 1000") as process,
        client("call", *WAIT, "B", "x", cwd=place) as caller,
    ):
        while not (place / "begun").exists():
            assert caller.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert finish(process)[0] == 130
        code, output, complaint = finish(caller)
    assert (code, output) == (1, b"")
    assert complaint in (
        b"triorelay: the call failed: the other client stopped serving\n",
        b"triorelay: B left before it answered\n",
    )


def test_a_callee_that_dies_is_one_line(place: Path) -> None:
    with (
        answering(place, "--exec", "echo > begun; sleep 1000") as process,
        client("call", *WAIT, "B", "x", cwd=place) as caller,
    ):
        while not (place / "begun").exists():
            assert caller.poll() is None
            time.sleep(0.01)
        process.kill()
        assert finish(caller) == (1, b"", b"triorelay: B left before it answered\n")


def test_a_call_whose_answer_the_relay_drops_fails_once_the_caller_reads_again(tmp_path: Path) -> None:
    with processes.relay("--overflow", "drop", "--stall-timeout", "0", cwd=tmp_path), answering(tmp_path):
        assert run("call", *WAIT, "B", "1", cwd=tmp_path).stdout == "1\n"
        caller, flood = (Client(socket.socket(socket.AF_UNIX)) for _ in range(2))
        with caller.socket, flood.socket:
            for client, hello in ((caller, b"Q\x81"), (flood, b"F\x82")):
                client.socket.connect(str(tmp_path / "server_socket"))
                client.send(hello)
                client.expect(hello[:1] + b"\0")
            told = FrameReader()
            while Event(EventCode.DROPPED, ord("Q")) not in told.feed(flood.socket.recv(4096)):
                flood.send(frames(b"Q", bytes(1 << 20)))
            message = CallMessage(CallKind.CALL, 7, b"question")
            caller.send(frames(b"B", encode_message(message.encode())))
            # B has answered the first call when it answers a later one.
            assert run("call", "B", "2", cwd=tmp_path).stdout == "2\n"
            arriving, messages, answers = FrameReader(), MessageReader(), list[bytes]()
            while not answers:
                for item in arriving.feed(caller.socket.recv(1 << 16)):
                    if not isinstance(item, Event) and item[0] == ord("B"):
                        answers += messages.feed(item[1])
            answer = decode_call(answers[0])
            assert (answer.kind, answer.number, answer.reason) == (CallKind.FAIL, 7, FailReason.ENDED)
