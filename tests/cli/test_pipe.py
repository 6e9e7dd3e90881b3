"""`triorelay pipe` as processes on both sides: end of file both ways, and nothing lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.cli import processes
from tests.cli.clients import client, finish
from tests.cli.processes import assert_one_line, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import RelayProcess


def say(process: subprocess.Popen[bytes], data: bytes, *, last: bool = False) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()
    if last:
        process.stdin.close()


def hear(process: subprocess.Popen[bytes], size: int = -1) -> bytes:
    assert process.stdout is not None
    return process.stdout.read(size)


def plain_client(place: Path) -> socket.socket:
    """Client B, which knows no streams and no events."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(processes.PATIENCE)
    connection.connect(str(place / "server_socket"))
    connection.sendall(b"B\x81")
    assert connection.recv(2) == b"B\0"
    return connection


def test_ten_megabytes_each_way_arrive_unharmed(place: Path) -> None:
    from_a, from_b = os.urandom(10_000_000), os.urandom(10_000_000)
    (place / "a").write_bytes(from_a)
    (place / "b").write_bytes(from_b)
    with (
        client("pipe", "-i", "A", "B", cwd=place, stdin=place / "a") as a,
        client("pipe", "-i", "B", "A", cwd=place, stdin=place / "b") as b,
        (place / "from-a").open("wb") as file,
        subprocess.Popen(["cat"], stdin=b.stdout, stdout=file) as keeping,
    ):
        assert finish(a) == (0, from_b, b"")
        assert (keeping.wait(), b.wait()) == (0, 0)
    assert (place / "from-a").read_bytes() == from_a


def test_each_end_of_file_is_carried_by_itself(place: Path) -> None:
    with client("pipe", "-i", "A", "B", cwd=place) as a, client("pipe", "-i", "B", "A", cwd=place) as b:
        say(a, b"question", last=True)
        # B sees the end while its own direction is open.
        assert hear(b) == b"question"
        say(b, b"answer", last=True)
        assert hear(a) == b"answer"
        assert (a.wait(), b.wait()) == (0, 0)
        assert (finish(a)[2], finish(b)[2]) == (b"", b"")


def test_the_end_is_carried_to_a_socket_that_is_input_and_output(place: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(processes.PATIENCE)
    with ours, client("pipe", "-i", "A", "B", cwd=place) as a:
        with theirs:
            command = processes.command("pipe", "-i", "B", "A")
            b = subprocess.Popen(
                command, cwd=place, env=processes.environment({}), stdin=theirs.fileno(), stdout=theirs.fileno()
            )
        with b:
            say(a, b"?", last=True)
            assert (ours.recv(2), ours.recv(2)) == (b"?", b"")
            ours.sendall(b"!")
            ours.shutdown(socket.SHUT_WR)
            assert hear(a) == b"!"
            assert (a.wait(), b.wait()) == (0, 0)


def test_what_one_says_is_heard_at_once(place: Path) -> None:
    with client("pipe", "-i", "A", "B", cwd=place) as a, client("pipe", "-i", "B", "A", cwd=place) as b:
        for word in (b"ping", b"more"):
            say(a, word)
            assert hear(b, 4) == word
            say(b, word)
            assert hear(a, 4) == word


def test_a_reader_that_is_slow_does_not_hold_up_the_other_direction(place: Path) -> None:
    (place / "much").write_bytes(bytes(1_000_000))
    with (
        client("pipe", "-i", "A", "B", cwd=place) as a,
        client("pipe", "-i", "B", "A", cwd=place, stdin=place / "much") as b,
    ):
        # Nobody reads what A hears, and more of it comes than a pipe holds.
        hear(a, 1)
        say(a, b"still here", last=True)
        assert hear(b) == b"still here"
        assert len(hear(a)) == 999_999
        assert (a.wait(), b.wait()) == (0, 0)


def test_a_peer_that_is_killed_breaks_the_stream(place: Path) -> None:
    with client("pipe", "-i", "A", "B", cwd=place) as a, client("pipe", "-i", "B", "A", cwd=place) as b:
        say(a, b"1")
        assert hear(b, 1) == b"1"
        b.kill()
        assert a.wait() == 1
        assert a.stderr is not None
        assert a.stderr.read() == b"triorelay: the stream broke: the peer left before its end, or bytes were lost\n"


def test_a_flood_of_another_client_does_not_end_a_waiting_one(place: Path) -> None:
    (place / "flood").write_bytes(bytes(400_000))
    with client("pipe", "-i", "A", "B", cwd=place) as a:
        with client("send", "-i", "C", "--wait", "30", "A", "-", cwd=place, stdin=place / "flood") as flood:
            assert finish(flood) == (0, b"", b"")
        with client("pipe", "-i", "B", "A", cwd=place) as b:
            say(b, b"hi", last=True)
            assert finish(a) == (0, b"hi", b"")
            assert finish(b) == (0, b"", b"")


def test_an_earlier_session_of_the_peer_does_not_end_a_wait(place: Path) -> None:
    with client("pipe", "B", cwd=place) as a:
        await_waiting(a)
        a.send_signal(signal.SIGSTOP)
        assert run("send", "-i", "B", "B", "x", cwd=place).returncode == 0
        a.send_signal(signal.SIGCONT)
        with client("pipe", "-i", "B", "0xff", cwd=place) as b:
            say(b, b"hi", last=True)
            assert finish(a) == (0, b"hi", b"")
            assert finish(b) == (0, b"", b"")


def test_any_free_id_is_shown_while_it_waits(place: Path) -> None:
    with client("pipe", "B", cwd=place) as a:
        assert a.stderr is not None
        assert a.stderr.readline() == b"waiting for B as 0xff\n"
        a.send_signal(signal.SIGINT)
        assert [part.strip() for part in finish(a)[1:]] == [b"", b"triorelay: interrupted"]


def test_ctrl_c_in_the_middle_leaves_no_traceback(place: Path) -> None:
    with client("pipe", "-i", "A", "B", cwd=place) as a, client("pipe", "-i", "B", "A", cwd=place) as b:
        say(a, b"1")
        assert hear(b, 1) == b"1"
        b.send_signal(signal.SIGINT)
        assert [part.strip() for part in finish(b)[1:]] == [b"", b"triorelay: interrupted"]


def test_a_peer_that_is_no_id_gets_one_line_and_exit_2(tmp_path: Path) -> None:
    assert_one_line(run("pipe", "AB", cwd=tmp_path), 2, "see triorelay pipe --help")


def await_waiting(process: subprocess.Popen[bytes]) -> None:
    """Return once a pipe from 0xff to B waits for B, and so will notice whatever B does."""
    assert process.stderr is not None
    assert process.stderr.readline() == b"waiting for B as 0xff\n"


class TestRaw:
    def test_bytes_go_both_ways_as_they_are_and_it_ends_when_the_peer_leaves(self, place: Path) -> None:
        with client("pipe", "--raw", "-i", "A", "B", cwd=place) as a, plain_client(place) as b:
            say(a, b"\0\xff")
            received = b.recv(1)
            while len(received) < 4:
                received += b.recv(4 - len(received))
            assert received == b"A\0A\xff"
            b.sendall(b"A1A\n")
            b.shutdown(socket.SHUT_WR)
            assert a.wait() == 0
            assert (hear(a), finish(a)[2]) == (b"1\n", b"")

    def test_all_that_came_before_it_left_is_written(self, place: Path) -> None:
        data = os.urandom(50_000)
        with client("pipe", "--raw", "B", cwd=place) as a:
            await_waiting(a)
            with plain_client(place) as b:
                b.sendall(b"".join(b"\xff%c" % byte for byte in data))
            assert finish(a) == (0, data, b"")

    def test_what_others_send_is_not_written(self, place: Path) -> None:
        with client("pipe", "--raw", "B", cwd=place) as a:
            await_waiting(a)
            assert run("send", "-i", "C", "0xff", "noise", cwd=place).returncode == 0
            with plain_client(place) as b:
                b.sendall(b"\xff1")
            assert finish(a) == (0, b"1", b"")

    def test_a_flood_of_another_client_does_not_end_a_waiting_one(self, place: Path) -> None:
        (place / "flood").write_bytes(bytes(400_000))
        with client("pipe", "--raw", "B", cwd=place) as a:
            await_waiting(a)
            with client("send", "-i", "C", "0xff", "-", cwd=place, stdin=place / "flood") as flood:
                assert finish(flood) == (0, b"", b"")
            with plain_client(place) as b:
                b.sendall(b"\xff1")
            assert finish(a) == (0, b"1", b"")

    def test_a_peer_that_came_and_went_in_one_instant_is_not_missed(self, running: RelayProcess, place: Path) -> None:
        with client("pipe", "--raw", "B", cwd=place) as a:
            await_waiting(a)
            a.send_signal(signal.SIGSTOP)
            with plain_client(place) as b:
                b.sendall(b"\xff1")
            running.wait_for("client left id=B")
            a.send_signal(signal.SIGCONT)
            assert finish(a) == (0, b"1", b"")

    def test_the_end_of_input_alone_does_not_end_it(self, place: Path) -> None:
        with client("pipe", "--raw", "B", cwd=place) as a:
            await_waiting(a)
            say(a, b"", last=True)
            with plain_client(place) as b:
                b.sendall(b"\xff1")
                assert hear(a, 1) == b"1"
            assert a.wait() == 0
