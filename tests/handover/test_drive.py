"""The conversation between two real processes' ends: sockets, descriptors, death at every step."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.handover import _drive, _successor
from triorelay.handover._conversation import (
    LONGEST_STATE,
    LONGEST_WORD,
    Failure,
    Go,
    Greeting,
    HandoverFailed,
    Offer,
    PredecessorDied,
    Ready,
    Word,
    Words,
    encode,
)
from triorelay.handover._descriptors import receive, send
from triorelay.protocol import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE = os.urandom(3_000_000)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


class OldRelay(threading.Thread):
    """The old relay's end, in a thread; `failure` is why it continues, None if it is gone."""

    def __init__(self, sock: socket.socket, descriptors: list[int]) -> None:
        super().__init__(daemon=True)
        self.failure: str | None = None
        self._sock, self._descriptors = sock, descriptors
        self.start()

    def run(self) -> None:
        words = Words("the successor")
        try:
            assert words.take(self._sock.recv(4096), Greeting) is not None
            _drive.hand_over(self._sock, words, 1, STATE, self._descriptors)
        except HandoverFailed as failure:
            self.failure = str(failure)
            with suppress(OSError):
                self._sock.sendall(encode(Failure(self.failure)))

    def outcome(self) -> str | None:
        self.join(30)
        assert not self.is_alive()
        return self.failure


def open_files(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


def test_state_and_descriptors_arrive_and_the_successor_gets_go(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    files = open_files(600)
    old = OldRelay(ends[0], [pipe[0], *files])
    inheritance = _drive.take_over(ends[1], [1], "0.1.0")
    assert inheritance.state == STATE
    assert len(inheritance.descriptors) == len(files)
    assert all(os.path.samestat(os.fstat(one), os.fstat(files[0])) for one in inheritance.descriptors)
    inheritance.confirm()
    assert old.outcome() is None
    inheritance.close()
    for file in files:
        os.close(file)


def test_a_successor_that_cannot_use_the_state_says_why(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    old = OldRelay(ends[0], [pipe[0]])
    inheritance = _drive.take_over(ends[1], [1], "0.1.0")
    inheritance.refuse("no port 9734 to be had")
    assert old.outcome() == "no port 9734 to be had"
    inheritance.close()


def test_a_successor_that_dies_leaves_the_old_relay_serving(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    old = OldRelay(ends[0], [pipe[0]])
    _drive.take_over(ends[1], [1], "0.1.0").close()
    assert old.outcome() == "the successor left"


def test_a_successor_that_hangs_leaves_the_old_relay_serving_and_must_end(
    ends: tuple[socket.socket, socket.socket], pipe: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_drive, "SECONDS", 0.2)
    old = OldRelay(ends[0], [pipe[0]])
    inheritance = _drive.take_over(ends[1], [1], "0.1.0")
    assert old.outcome() == "the successor was not ready after 0.2 s"
    with pytest.raises(HandoverFailed, match="not ready after"):
        inheritance.confirm()
    inheritance.close()


def test_a_successor_that_reads_nothing_leaves_the_old_relay_serving_and_must_end(
    ends: tuple[socket.socket, socket.socket], pipe: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no room for the reason, so the pipe has to tell that the old relay lives."""
    monkeypatch.setattr(_drive, "SECONDS", 0.2)
    old = OldRelay(ends[0], [pipe[0]])
    ends[1].sendall(encode(Greeting([1], "0.1.0")))
    assert old.outcome() == "the successor was not ready after 0.2 s"
    ends[0].close()
    monkeypatch.setattr(_drive, "PATIENCE", 0.1)
    with pytest.raises(HandoverFailed, match="gave up"):
        _drive.take_over(ends[1], [1], "0.1.0")


def test_what_a_successor_said_before_it_left_is_the_reason(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    words = Words("the successor")
    words.take(encode(Greeting([1], "0.1.0")), Greeting)
    ends[1].sendall(b"GET / HTTP/1.1\r\n")
    ends[1].close()
    with pytest.raises(HandoverFailed, match="another protocol"):
        _drive.hand_over(ends[0], words, 1, STATE, [pipe[0]])


def test_an_old_relay_that_dies_with_the_state_handed_over_has_a_successor(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    sending = threading.Thread(target=send, args=(ends[0], encode(Offer(1, 10, 1)) + b"0123456789", pipe[:1]))
    sending.start()
    inheritance = _drive.take_over(ends[1], [1], "0.1.0")
    ends[0].close()
    os.close(pipe.pop())
    inheritance.confirm()
    assert inheritance.state == b"0123456789"
    inheritance.close()


def test_an_old_relay_that_dies_before_its_state_arrived_has_none(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    send(ends[0], encode(Offer(1, 10, 1)) + b"01234", pipe[:1])
    ends[0].close()
    os.close(pipe.pop())
    with pytest.raises(PredecessorDied):
        _drive.take_over(ends[1], [1], "0.1.0")


def test_an_old_relay_that_dies_without_a_word_has_none(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    with pytest.raises(PredecessorDied):
        _drive.take_over(ends[1], [1], "0.1.0")


def test_a_failed_takeover_leaves_no_descriptor_open(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    files = open_files(300)
    before = len(os.listdir("/proc/self/fd"))
    send(ends[0], encode(Offer(1, 10, 301)) + b"01", [pipe[0], *files])
    ends[0].close()
    os.close(pipe.pop())
    with pytest.raises(PredecessorDied):
        _drive.take_over(ends[1], [1], "0.1.0")
    assert len(os.listdir("/proc/self/fd")) == before - 3
    for file in files:
        os.close(file)


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(1, 200), max_size=20))
def test_a_handover_succeeds_wherever_its_bytes_are_split(state: bytes, cuts: list[int]) -> None:
    """The kernel delivers bytes that come with a descriptor apart from those that follow."""
    inner = sorted({cut for cut in cuts if cut < 50 + len(state)})
    stream = encode(Offer(1, len(state), len(inner) + 1)) + state
    one, other = socket.socketpair()
    with one, other, open(os.devnull) as file:
        for start, end in pairwise([0, *inner, len(stream)]):
            send(one, stream[start:end], [file.fileno()])
        inheritance = _drive.take_over(other, [1], "0.1.0")
        assert inheritance.state == state
        assert len(inheritance.descriptors) == len(inner)
        for byte in encode(Go()):
            send(one, bytes((byte,)), [file.fileno()])
        inheritance.confirm()
        inheritance.close()


def after_the_state(ends: tuple[socket.socket, socket.socket], pipe: list[int]) -> _drive.Inheritance:
    send(ends[0], encode(Offer(1, 3, 1)) + b"abc", pipe[:1])
    return _drive.take_over(ends[1], [1], "0.1.0")


def test_the_reason_of_the_old_relay_reaches_the_successor(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    inheritance = after_the_state(ends, pipe)
    ends[0].sendall(encode(Failure("too late")))
    with pytest.raises(HandoverFailed, match="too late"):
        inheritance.confirm()
    ends[0].sendall(encode(Failure("not now")))
    with pytest.raises(HandoverFailed, match="not now"):
        _drive.take_over(ends[1], [1], "0.1.0")
    inheritance.close()


@pytest.mark.parametrize("word", [Ready(), Greeting([1], "0.1.0")])
def test_nothing_but_go_lets_a_successor_serve(
    ends: tuple[socket.socket, socket.socket], pipe: list[int], word: Word
) -> None:
    inheritance = after_the_state(ends, pipe)
    ends[0].sendall(encode(word))
    with pytest.raises(HandoverFailed, match="out of turn"):
        inheritance.confirm()
    inheritance.close()


@pytest.mark.parametrize("offer", [Offer(1, 0, 1), Offer(1, 1, 0), Offer(1, LONGEST_STATE + 1, 1), Offer(1, 1, 10**6)])
def test_an_offer_beyond_the_bounds_is_refused(ends: tuple[socket.socket, socket.socket], offer: Offer) -> None:
    ends[0].sendall(encode(offer))
    with pytest.raises(HandoverFailed, match="too large"):
        _drive.take_over(ends[1], [1], "0.1.0")


@pytest.mark.parametrize("said", [encode(Go()), encode(Greeting([1], "0.1.0")), b"\0" * LONGEST_WORD])
def test_a_successor_that_is_offered_something_else_fails(
    ends: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    ends[0].sendall(said)
    with pytest.raises(HandoverFailed, match=r"out of turn|another protocol"):
        _drive.take_over(ends[1], [1], "0.1.0")


def test_more_descriptors_than_offered_are_refused(ends: tuple[socket.socket, socket.socket], pipe: list[int]) -> None:
    send(ends[0], encode(Offer(1, 3, 1)) + b"abc", pipe)
    with pytest.raises(HandoverFailed, match="more descriptors"):
        _drive.take_over(ends[1], [1], "0.1.0")


def test_a_state_without_all_its_descriptors_is_not_whole(
    ends: tuple[socket.socket, socket.socket], pipe: list[int]
) -> None:
    send(ends[0], encode(Offer(1, 3, 2)) + b"abc", pipe[:1])
    ends[0].close()
    with pytest.raises(HandoverFailed, match="gave up"):
        _drive.take_over(ends[1], [1], "0.1.0")


def test_an_old_relay_that_gave_up_serves_on(ends: tuple[socket.socket, socket.socket], pipe: list[int]) -> None:
    inheritance = after_the_state(ends, pipe)
    ends[0].close()
    with pytest.raises(HandoverFailed, match="gave up"):
        inheritance.confirm()
    inheritance.close()


TAKING = """
import socket, sys
from triorelay.handover._descriptors import receive
try:
    receive(socket.socket(fileno=int(sys.argv[1])), 100)
except OSError as error:
    print(error)
"""


def test_a_process_without_room_for_the_descriptors_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    files = open_files(100)
    send(ends[0], b"x", files)
    taking = subprocess.run(
        [sys.executable, "-c", TAKING, str(ends[1].fileno())],
        pass_fds=[ends[1].fileno()],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert taking.stdout == "too few descriptors: raise `ulimit -n` of the successor\n"
    for file in files:
        os.close(file)


def test_descriptors_that_were_received_are_not_for_children(ends: tuple[socket.socket, socket.socket]) -> None:
    files = open_files(1)
    send(ends[0], b"x", files)
    _, received = receive(ends[1], 10)
    assert [os.get_inheritable(one) for one in received] == [False]
    for file in (*files, *received):
        os.close(file)


def test_a_successor_takes_nothing_over_from_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others may write to the directory, one of them could listen there and hand over anything."""
    path = str(tmp_path / "other.handover")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        monkeypatch.setattr(_successor, "credentials", lambda _: (1, 12345))
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ConfigError, match="belongs to uid 12345"):
            _successor.inherit(path)
