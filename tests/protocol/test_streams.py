"""The state of a byte stream between two clients, as a table of what each message does to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.protocol import Half, RemoteProtocolError, StreamKind, StreamState

OPEN, ENDED, STOPPED, BROKEN = Half.OPEN, Half.ENDED, Half.STOPPED, Half.BROKEN

END, STOP, BREAK = (bytes((kind,)) for kind in (StreamKind.END, StreamKind.STOP, StreamKind.BROKEN))


def data(payload: bytes) -> bytes:
    return bytes((StreamKind.DATA,)) + payload


def halves(state: StreamState) -> tuple[Half, Half]:
    return state.sending, state.receiving


def test_the_kinds_are_those_of_the_protocol() -> None:
    assert {kind.name: int(kind) for kind in StreamKind} == {"DATA": 0, "END": 1, "STOP": 2, "BROKEN": 3}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (data(b"1"), (OPEN, OPEN)),
        (END, (OPEN, ENDED)),
        (STOP, (STOPPED, OPEN)),
        (BREAK, (BROKEN, BROKEN)),
    ],
    ids=["data", "end", "stop", "broken"],
)
def test_what_the_peer_says_changes_an_open_stream(message: bytes, expected: tuple[Half, Half]) -> None:
    state = StreamState()
    state.receive(message)
    assert halves(state) == expected


def test_what_this_side_does_changes_an_open_stream() -> None:
    state = StreamState()
    state.end()
    assert halves(state) == (ENDED, OPEN)
    assert not state.finished
    state.stop()
    assert halves(state) == (ENDED, STOPPED)
    assert state.finished


def test_data_is_returned_while_this_side_reads() -> None:
    state = StreamState()
    assert state.receive(data(b"bytes")) == b"bytes"
    assert state.receive(data(b"")) == b""
    state.end()
    assert state.receive(data(b"more")) == b"more"
    state.stop()
    assert state.receive(data(b"late")) == b""


def test_data_after_the_end_is_not_of_this_stream() -> None:
    state = StreamState()
    assert state.receive(END) == b""
    assert state.receive(data(b"next")) == b""


@pytest.mark.parametrize(("message", "finished"), [(data(b""), False), (STOP, False), (END, True), (BREAK, True)])
def test_the_peer_has_finished_with_its_end(message: bytes, finished: bool) -> None:
    state = StreamState()
    state.receive(message)
    assert state.peer_finished is finished


def test_the_peers_end_is_seen_by_a_side_that_reads_no_more() -> None:
    state = StreamState()
    state.stop()
    state.receive(END)
    assert state.peer_finished
    assert halves(state) == (OPEN, STOPPED)


def test_breaking_leaves_alone_what_had_ended() -> None:
    state = StreamState()
    state.receive(END)
    state.break_off()
    assert halves(state) == (BROKEN, ENDED)
    state = StreamState()
    state.end()
    state.receive(BREAK)
    assert halves(state) == (ENDED, BROKEN)


@pytest.mark.parametrize("message", [b"", b"\x04", b"\xff"], ids=repr)
def test_what_begins_with_no_kind_is_the_peers_mistake(message: bytes) -> None:
    state = StreamState()
    with pytest.raises(RemoteProtocolError, match="begins with its kind, 0 to 3"):
        state.receive(message)
    assert halves(state) == (OPEN, OPEN)


@given(st.lists(st.one_of(st.binary(max_size=4), st.sampled_from(["end", "stop", "break_off"]))))
def test_a_direction_that_is_not_open_never_changes_again(steps: list[bytes | str]) -> None:
    state = StreamState()
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
