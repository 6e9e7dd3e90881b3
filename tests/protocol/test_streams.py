"""The state of a byte stream between two clients: what each message does to it, and which two belong together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triorelay.protocol import LARGEST_NUMBER, Half, RemoteProtocolError, StreamKind, StreamState

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN, ENDED, STOPPED, BROKEN = Half.OPEN, Half.ENDED, Half.STOPPED, Half.BROKEN

NUMBER = 0x0A0B0C0D


def message(kind: StreamKind, data: bytes = b"", number: int = NUMBER) -> bytes:
    return bytes((kind,)) + number.to_bytes(4) + data


def data(payload: bytes) -> bytes:
    return message(StreamKind.DATA, payload)


END, CLOSE, BREAK = map(message, (StreamKind.END, StreamKind.CLOSE, StreamKind.BROKEN))


def opening(to: int, number: int) -> bytes:
    return message(StreamKind.OPEN, number.to_bytes(4), to)


def opened(*, decides: bool = False) -> StreamState:
    """Return one side of a stream that both have opened; what it says and hears has the same number."""
    state = StreamState(NUMBER, decides=decides)
    state.receive(opening(NUMBER, NUMBER))
    state.take_messages()
    return state


def halves(state: StreamState) -> tuple[Half, Half]:
    return state.sending, state.receiving


def test_the_kinds_are_those_of_the_protocol() -> None:
    kinds = {kind.name: int(kind) for kind in StreamKind}
    assert kinds == {"DATA": 0, "END": 1, "CLOSE": 2, "BROKEN": 3, "OPEN": 8}


# -- how it begins


def test_the_higher_id_takes_an_opening_and_the_lower_waits_for_the_answer() -> None:
    lower, higher = StreamState(1, decides=False), StreamState(2, decides=True)
    for state in (lower, higher):
        state.announce()
        state.announce()
    assert lower.take_messages() == [opening(0, 1)]
    assert higher.take_messages() == [opening(0, 2)]
    higher.receive(opening(0, 1))
    assert (higher.paired, higher.take_messages()) == (True, [opening(1, 2)])
    lower.receive(opening(0, 2))
    assert (lower.paired, lower.take_messages()) == (False, [opening(2, 1)])
    lower.receive(opening(1, 2))
    assert (lower.paired, lower.take_messages()) == (True, [])
    higher.receive(opening(2, 1))
    lower.receive(opening(0, 2))
    assert (lower.take_messages(), higher.take_messages()) == ([], [])
    assert lower.encode(StreamKind.DATA, b"12") == message(StreamKind.DATA, b"12", 2)
    assert higher.encode(StreamKind.DATA, memoryview(b"34")) == message(StreamKind.DATA, b"34", 1)
    higher.receive(opening(0, 1))
    assert (halves(higher), higher.take_messages()) == ((OPEN, OPEN), [])


@pytest.mark.parametrize("decides", [True, False])
def test_what_was_to_be_said_before_follows_the_opening(decides: bool) -> None:
    state = StreamState(1, decides=decides)
    state.end()
    state.close()
    assert state.take_messages() == []
    state.receive(opening(1, 9))
    ends = [message(StreamKind.END, number=9), message(StreamKind.CLOSE, number=9)]
    assert state.take_messages() == [opening(9, 1)] * decides + ends


@pytest.mark.parametrize("decides", [True, False])
def test_an_opening_for_another_stream_is_of_no_matter(decides: bool) -> None:
    state = StreamState(1, decides=decides)
    state.receive(opening(3, 9))
    state.receive(message(StreamKind.CLOSE, number=0))
    state.receive(message(StreamKind.CLOSE, number=1))
    assert (state.paired, halves(state), state.take_messages()) == (False, (OPEN, OPEN), [])


@pytest.mark.parametrize("decides", [True, False])
def test_nothing_begins_or_changes_a_stream_that_the_peer_has_finished(decides: bool) -> None:
    state = StreamState(1, decides=decides)
    state.part()
    for number in (0, 1):
        state.receive(opening(number, 9))
    assert (state.paired, state.take_messages()) == (False, [])
    state = opened(decides=decides)
    state.receive(message(StreamKind.CLOSE, number=0))
    assert halves(state) == (OPEN, OPEN)


def test_each_side_opens_once_where_the_other_was_first() -> None:
    lower, higher = StreamState(1, decides=False), StreamState(2, decides=True)
    lower.receive(opening(0, 2))
    higher.receive(opening(0, 1))
    assert (lower.take_messages(), higher.take_messages()) == ([opening(0, 1)], [opening(1, 2)])
    for state in (lower, higher):
        state.announce()
        assert state.take_messages() == []


def test_a_side_that_closes_after_the_end_of_the_peer_says_so() -> None:
    state = opened()
    state.receive(END)
    state.close()
    assert (halves(state), state.take_messages()) == ((ENDED, ENDED), [CLOSE])


def test_the_lower_id_is_answered_once() -> None:
    state = opened()
    state.receive(opening(NUMBER, 9))
    assert state.encode(StreamKind.END) == END


@pytest.mark.parametrize("exchange", ["receive", "send", "nothing"])
def test_a_later_opening_replaces_only_a_stream_on_which_nothing_was_said(exchange: str) -> None:
    state = opened(decides=True)
    if exchange == "receive":
        state.receive(data(b"1"))
    elif exchange == "send":
        state.encode(StreamKind.DATA, b"1")
    state.receive(opening(0, 9))
    if exchange == "nothing":
        assert (halves(state), state.take_messages()) == ((OPEN, OPEN), [opening(9, NUMBER)])
        assert state.encode(StreamKind.END) == message(StreamKind.END, number=9)
    else:
        assert (halves(state), state.peer_finished, state.take_messages()) == ((BROKEN, BROKEN), True, [])


@pytest.mark.parametrize("decides", [True, False])
def test_what_follows_a_stream_that_the_peer_never_opened_takes_its_place(decides: bool) -> None:
    earlier = StreamState(1, decides=decides)
    earlier.announce()
    earlier.take_messages()
    earlier.close()
    following = StreamState(2, decides=decides)
    following.follow(earlier)
    following.announce()
    assert following.take_messages() == []
    following.receive(opening(1, 9))
    assert following.paired


def test_what_follows_a_stream_of_both_has_a_number_of_its_own() -> None:
    following = StreamState(1, decides=False)
    following.follow(opened())
    following.announce()
    assert following.take_messages() == [opening(0, 1)]


# -- how it ends


@pytest.mark.parametrize(
    ("said", "expected", "finished"),
    [
        (data(b"1"), (OPEN, OPEN), False),
        (END, (OPEN, ENDED), False),
        (CLOSE, (STOPPED, ENDED), True),
        (BREAK, (BROKEN, BROKEN), True),
    ],
    ids=["data", "end", "close", "broken"],
)
def test_what_the_peer_says_changes_an_open_stream(said: bytes, expected: tuple[Half, Half], finished: bool) -> None:
    state = opened()
    state.receive(said)
    assert halves(state) == expected
    assert state.peer_finished is finished


def test_what_this_side_does_changes_an_open_stream() -> None:
    state = opened()
    state.end()
    assert halves(state) == (ENDED, OPEN)
    assert not state.finished
    state.close()
    assert halves(state) == (ENDED, STOPPED)
    assert state.finished
    for again in (state.end, state.close, state.break_off):
        again()
    assert state.take_messages() == [END, CLOSE]


def test_closing_says_nothing_more_after_both_have_said_end() -> None:
    state = opened()
    state.receive(END)
    assert (state.peer_ended, state.peer_finished) == (True, False)
    state.end()
    state.close()
    assert state.take_messages() == [END]
    assert state.late_messages() == [CLOSE, BREAK]
    state.receive(CLOSE)
    assert state.late_messages() == []


def test_a_close_may_say_broken() -> None:
    state = opened()
    state.close(StreamKind.BROKEN)
    assert state.take_messages() == [BREAK]


def test_data_is_returned_while_this_side_reads() -> None:
    state = opened()
    assert state.receive(data(b"bytes")) == b"bytes"
    assert state.receive(data(b"")) == b""
    state.end()
    assert state.receive(data(b"more")) == b"more"
    state.close()
    assert state.receive(data(b"late")) == b""


@pytest.mark.parametrize("last", [END, CLOSE, BREAK])
def test_data_after_the_end_is_not_returned(last: bytes) -> None:
    state = opened()
    assert state.receive(last) == b""
    assert state.receive(data(b"too late")) == b""


def test_breaking_leaves_alone_what_had_ended_and_is_said_once() -> None:
    state = opened()
    state.receive(END)
    state.break_off()
    state.break_off()
    state.close()
    assert halves(state) == (BROKEN, ENDED)
    assert state.take_messages() == [BREAK]
    state = opened()
    state.end()
    state.receive(BREAK)
    assert halves(state) == (ENDED, BROKEN)


def test_nothing_is_said_to_a_peer_that_is_gone() -> None:
    state = opened()
    state.end()
    state.part()
    state.close()
    assert state.take_messages() == []
    assert halves(state) == (ENDED, BROKEN)
    assert state.peer_finished


@pytest.mark.parametrize("wrong", [b"", b"\x04abcd", b"\x09abcd", b"\xffabcd"], ids=repr)
def test_what_begins_with_no_kind_is_the_peers_mistake(wrong: bytes) -> None:
    state = opened()
    with pytest.raises(RemoteProtocolError, match="begins with its kind, 0 to 3 or 8"):
        state.receive(wrong)
    assert halves(state) == (OPEN, OPEN)


@pytest.mark.parametrize("kind", StreamKind)
def test_a_message_without_a_number_is_the_peers_mistake(kind: StreamKind) -> None:
    with pytest.raises(RemoteProtocolError, match=f"has a number of four bytes; a {kind.name} had none"):
        opened().receive(bytes((kind, 1, 2, 3)))


@pytest.mark.parametrize("wrong", [b"", b"abc", b"abcde"])
def test_an_opening_without_two_numbers_is_the_peers_mistake(wrong: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="an OPEN has two numbers"):
        opened().receive(message(StreamKind.OPEN, wrong))


@given(st.lists(st.one_of(st.binary(max_size=7), st.sampled_from([END, CLOSE, "end", "close", "break_off"]))))
def test_a_direction_that_is_not_open_never_changes_again(steps: list[bytes | str]) -> None:
    state = opened()
    for step in steps:
        before = halves(state)
        if isinstance(step, str):
            getattr(state, step)()
        else:
            try:
                state.receive(step)
            except RemoteProtocolError:
                assert halves(state) == before
        assert all(half is OPEN or half is now for half, now in zip(before, halves(state), strict=True))


# -- two sides, in any order

LEFT = b""
"""The relay's event, among what is on its way."""


@dataclass(eq=False)
class Stream:
    """A stream of one side.

    Attributes:
        label: what its data says.
        state: how it stands.
        sent: how many times it has sent data.
        received: the labels and numbers of what it got.
        closed: whether it was closed.
    """

    label: int
    state: StreamState
    sent: int = 0
    received: list[tuple[int, int]] = field(default_factory=list)
    closed: bool = False


class Side:
    """One client: a stream after another, and what is on its way to it."""

    def __init__(self, numbers: Iterator[int], labels: Iterator[int], *, decides: bool) -> None:
        self.numbers, self.labels, self.decides = numbers, labels, decides
        self.coming: deque[bytes] = deque()
        self.unclaimed: list[bytes] = []
        self.holder: Stream | None = None
        self.all: list[Stream] = []
        self.peer: Side = self

    def step(self, action: str) -> None:
        current = self.holder
        if action == "deliver" and self.coming:
            self._take(self.coming.popleft())
        elif action == "lose unclaimed":
            self.unclaimed.clear()
        elif action == "restart":
            # What the peer had sent before it hears of this reaches the new session.
            self.holder = None
            self.unclaimed.clear()
            self.peer.coming.append(LEFT)
        elif action == "open" and (current is None or current.closed):
            self._open()
        elif current is not None and not current.closed:
            if action == "close":
                current.closed = True
                current.state.close()
            elif action == "end":
                current.state.end()
            elif action == "send" and current.state.paired and current.state.sending is OPEN:
                self.peer.coming.append(current.state.encode(StreamKind.DATA, bytes((current.label, current.sent))))
                current.sent += 1
        self._settle()

    def _open(self) -> None:
        stream = Stream(next(self.labels), StreamState(next(self.numbers), decides=self.decides))
        if self.holder is not None:
            stream.state.follow(self.holder.state)
        self.holder = stream
        self.all.append(stream)
        unclaimed, self.unclaimed = self.unclaimed, []
        for said in unclaimed:
            if said != LEFT:
                self._take(said)
        stream.state.announce()

    def _take(self, said: bytes) -> None:
        if self.holder is None:
            self.unclaimed.append(said)
        elif said == LEFT:
            self.holder.state.part()
        elif self.holder.closed and self.holder.state.peer_ended:
            if said not in self.holder.state.late_messages():
                self.unclaimed.append(said)
            self.holder = None
        elif came := self.holder.state.receive(said):
            self.holder.received.append((came[0], came[1]))

    def _settle(self) -> None:
        if self.holder is not None:
            self.peer.coming.extend(self.holder.state.take_messages())
            if self.holder.closed and self.holder.state.peer_finished:
                self.holder = None


ACTIONS = ["deliver", "open", "close", "end", "send", "lose unclaimed", "restart"]


def two_sides(steps: list[tuple[int, str]]) -> tuple[Side, Side]:
    labels = count()
    numbers = iter(range(LARGEST_NUMBER, 0, -1))
    lower, higher = Side(numbers, labels, decides=False), Side(numbers, labels, decides=True)
    lower.peer, higher.peer = higher, lower
    for side, action in steps:
        (lower, higher)[side].step(action)
    return lower, higher


def deliver_all(sides: tuple[Side, Side]) -> None:
    while any(side.coming for side in sides):
        for side in sides:
            side.step("deliver")


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS)), max_size=80))
def test_each_stream_belongs_to_one_of_the_other_side_whatever_the_order(steps: list[tuple[int, str]]) -> None:
    sides = two_sides(steps)
    # Whatever was begun or left half done: in the end both open a stream, and it carries data both ways.
    for action in ("close", "open", "send"):
        deliver_all(sides)
        for side in sides:
            side.step(action)
    deliver_all(sides)
    last = [side.all[-1] for side in sides]
    by_label = {stream.label: stream for side in sides for stream in side.all}
    for side in sides:
        for stream in side.all:
            senders = {label for label, _ in stream.received}
            assert len(senders) <= 1
            assert [number for _, number in stream.received] == list(range(len(stream.received)))
            for label in senders:
                assert by_label[label] in side.peer.all
                assert {back for back, _ in by_label[label].received} <= {stream.label}
    assert [stream.received[-1:] for stream in last] == [[(other.label, other.sent - 1)] for other in reversed(last)]
