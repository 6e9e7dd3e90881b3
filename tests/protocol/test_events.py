"""Events and requests: two adjacent frames from or to id 0, in any split."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.splits import byte_by_byte, cut, cuts, every_cut_in_two
from triorelay.protocol import Event, EventCode, FrameReader, RemoteProtocolError, address_frames, encode_event

Item = tuple[int, bytes] | Event

events = st.builds(Event, st.integers(0, 255), st.integers(0, 255))
received = st.lists(
    st.one_of(st.tuples(st.integers(1, 255), st.binary(min_size=1, max_size=9)), events),
    max_size=12,
)


def encode(items: list[Item]) -> bytes:
    return b"".join(
        encode_event(item.code, item.argument) if isinstance(item, Event) else bytes(address_frames(*item))
        for item in items
    )


def read(pieces: list[bytes]) -> list[Item] | str:
    """Return what a reader finds, data of one source put together where a split parted it; or the complaint."""
    reader, found = FrameReader(), list[Item]()
    try:
        for piece in pieces:
            for item in reader.feed(piece):
                last = found[-1] if found else None
                if isinstance(item, tuple) and isinstance(last, tuple) and item[0] == last[0]:
                    found[-1] = (item[0], last[1] + item[1])
                else:
                    found.append(item)
    except RemoteProtocolError as error:
        return str(error)
    return found


def test_the_codes_are_those_of_the_protocol() -> None:
    assert {code: int(member) for code, member in EventCode.__members__.items()} == {
        "JOINED": 1,
        "LEFT": 2,
        "NO_ROUTE": 3,
        "DROPPED": 4,
        "DRAINING": 5,
        "PONG": 6,
        "SYNCED": 7,
        "FLUSHED": 8,
        "CLOSING": 9,
        "PING": 6,
        "LIST": 7,
        "FLUSH": 8,
    }


def test_an_event_is_two_frames_from_id_0() -> None:
    assert encode_event(EventCode.JOINED, 65) == b"\0\x01\0A"


def test_a_read_event_compares_with_its_code_by_name() -> None:
    (event,) = FrameReader().feed(b"\0\x02\0A")
    assert event == Event(EventCode.LEFT, 65)


def test_an_event_about_an_id_gives_it_as_text_and_any_other_event_none() -> None:
    assert [Event(code, 65).id for code in range(11)] == ["", "A", "A", "A", "A", "", "", "", "", "", ""]
    assert Event(EventCode.LEFT, 0xFF).id == "\xff"


def test_every_event_and_every_argument_is_read_back() -> None:
    for code in range(256):
        for argument in range(256):
            assert FrameReader().feed(encode_event(code, argument)) == [Event(code, argument)]


def test_every_data_frame_is_read_back() -> None:
    for source in range(1, 256):
        for data in range(256):
            assert FrameReader().feed(bytes((source, data))) == [(source, bytes((data,)))]


def test_adjacent_frames_of_one_source_are_joined_and_events_keep_their_place() -> None:
    frames = b"A1A2\0\x01\0BB3\0\x02\0B\0\x02\0CA4"
    assert FrameReader().feed(frames) == [
        (65, b"12"),
        Event(EventCode.JOINED, 66),
        (66, b"3"),
        Event(EventCode.LEFT, 66),
        Event(EventCode.LEFT, 67),
        (65, b"4"),
    ]


@given(items=received, places=cuts)
def test_any_split_gives_the_same_data_and_events(items: list[Item], places: list[int]) -> None:
    sent = encode(items)
    whole = read([sent])
    assert whole == read(cut(sent, places)) == read(byte_by_byte(sent))
    assert isinstance(whole, list)
    assert encode(whole) == sent


def test_every_cut_in_two_gives_the_same_data_and_events() -> None:
    sent = b"\0\x01\0AA1A2\0\x06\0\0\0\x00\0\xffB\0"
    whole = read([sent])
    assert all(read(pieces) == whole for pieces in every_cut_in_two(sent))


@given(items=received, half=st.sampled_from([b"\0", b"A", b"\0\x01", b"\0\x01\0"]))
def test_a_half_frame_and_a_half_event_wait_for_their_other_half(items: list[Item], half: bytes) -> None:
    reader = FrameReader()
    reader.feed(encode(items))
    assert reader.feed(half) == []
    assert reader.feed(b"") == []
    assert reader.feed(b"\0\x01\0A"[len(half) :] if half != b"A" else b"1") == (
        [(65, b"1")] if half == b"A" else [Event(1, 65)]
    )


@given(sent=st.lists(st.sampled_from([b"\0", b"\x01", b"A"]), max_size=40).map(b"".join), places=cuts)
def test_garbage_is_read_or_a_remote_protocol_error_in_any_split(sent: bytes, places: list[int]) -> None:
    assert read([sent]) == read(cut(sent, places)) == read(byte_by_byte(sent))


@pytest.mark.parametrize("code", [0, 1, 255])
def test_a_frame_between_the_two_of_an_event_breaks_the_protocol(code: int) -> None:
    with pytest.raises(RemoteProtocolError, match="a frame from A between the two frames of an event"):
        FrameReader().feed(bytes((0, code)) + b"A1\0A")


@given(data=st.binary(max_size=50))
def test_what_is_fed_may_be_changed_afterwards(data: bytes) -> None:
    buffer: Any = bytearray(data)
    reader, found = FrameReader(), list[Item]()
    try:
        found += reader.feed(buffer)
        expected = FrameReader().feed(data)
    except RemoteProtocolError:
        return
    buffer[:] = bytes(len(buffer))
    assert found == expected


@pytest.mark.parametrize(
    ("code", "argument", "text"),
    [
        (1, ord("B"), "JOINED B"),
        (2, 255, "LEFT 0xff"),
        (3, ord("B"), "NO_ROUTE B"),
        (5, 0, "DRAINING"),
        (6, 3, "PONG 3"),
        (7, 0, "SYNCED"),
        (9, 3, "CLOSING slow_consumer"),
        (9, 99, "CLOSING 99"),
        (77, 3, "77 3"),
    ],
)
def test_an_event_reads_as_a_log_would_show_it(code: int, argument: int, text: str) -> None:
    (event,) = FrameReader().feed(encode_event(code, argument))
    assert isinstance(event, Event)
    assert str(event) == text
    assert isinstance(event.code, EventCode) == (code != 77)
    assert event == Event(code, argument)
