"""NATS's protocol: however the bytes are cut the events are the same, and no bytes do worse than be refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.cluster.nats import _protocol as protocol
from triorelay.cluster.nats._protocol import Event, Info, Message, Parser, Ping, Pong, Problem, ProtocolError

words = st.text(
    st.characters(codec="ascii", exclude_characters="\x00 \t\r\n\x0b\x0c", categories=("L", "N", "P")), min_size=1
)
headers = st.dictionaries(st.text("abc-", min_size=1), st.text("xyz 0", max_size=9).map(str.strip))


def encoded(event: Event) -> bytes:
    """Return what a server sends for this event."""
    match event:
        case Message():
            reply = f" {event.reply}" if event.reply else ""
            size = len(event.headers) + len(event.payload)
            sizes = f"{len(event.headers)} {size}" if event.headers else f"{size}"
            line = f"{'H' * bool(event.headers)}MSG {event.subject} {event.subscription}{reply} {sizes}\r\n"
            return line.encode() + event.headers + bytes(event.payload) + b"\r\n"
        case Info():
            return b'INFO {"max_payload": 7}\r\n'
        case Problem():
            return f"-ERR '{event.text}'\r\n".encode()
        case Ping():
            return b"PING\r\n"
        case Pong():
            return b"PONG\r\n"


events = st.one_of(
    st.builds(
        Message,
        st.integers(0, 10**6),
        words,
        st.just("") | words,
        st.just(b"") | headers.map(protocol.encode_headers),
        st.binary().map(memoryview),
    ),
    st.just(Info({"max_payload": 7})),
    st.builds(Problem, st.text("abc ", min_size=1).map(str.strip)),
    st.just(Ping()),
    st.just(Pong()),
)


def feed(parser: Parser, data: bytes) -> list[Event]:
    """Return the events that `data` completes, with payloads of their own: what is fed next takes their place."""
    room = parser.room()[: len(data)]
    room[:] = data[: len(room)]
    events = [
        event._replace(payload=memoryview(bytes(event.payload))) if isinstance(event, Message) else event
        for event in parser.parse(len(room))
    ]
    return events + feed(parser, data[len(room) :]) if len(room) < len(data) else events


@given(st.lists(events), st.data())
def test_events_are_the_same_however_their_bytes_are_cut(sent: list[Event], data: st.DataObject) -> None:
    stream = b"".join(map(encoded, sent))
    parser, got, at = Parser(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at) | st.just(1))
        got += feed(parser, stream[at : at + size])
        at += size
    assert got == sent


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"MSG a 1 ", b"HMSG a 1 b 4 5\r\n", b"INFO ", b"\r\n", b"9"]))
)
def test_other_bytes_are_a_protocol_error_and_nothing_worse(pieces: list[bytes]) -> None:
    parser = Parser()
    with suppress(ProtocolError):
        for piece in pieces:
            feed(parser, piece)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"INFO []\r\n",
        b"INFO \xff\r\n",
        b"x" * protocol.LONGEST_LINE,
        b"MSG a\r\n",
        b"MSG a b 1\r\n",
        b"MSG a 1 1_0\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 5 \r\n",
        b"MSG a 1 99999999999\r\n",
        b"MSG a 1 1\r\nxyz",
        b"HMSG a 1 5 4\r\n",
    ],
)
def test_what_no_server_sends_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(Parser(), data)


def test_a_line_that_never_ends_is_refused_when_it_is_too_long() -> None:
    parser = Parser()
    for _ in range(protocol.LONGEST_LINE // 1000):
        assert feed(parser, b"x" * 1000) == []
    with pytest.raises(ProtocolError, match="without an end"):
        feed(parser, b"x" * 1000)


@given(headers)
def test_headers_are_read_as_they_were_written(fields: dict[str, str]) -> None:
    assert protocol.decode_headers(protocol.encode_headers(fields)) == (0, fields)


def test_a_status_is_read() -> None:
    assert protocol.decode_headers(b"NATS/1.0 503\r\n\r\n")[0] == 503
    assert protocol.decode_headers(b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n") == (100, {"a": "b"})


def test_headers_of_another_kind_are_refused() -> None:
    with pytest.raises(ProtocolError):
        protocol.decode_headers(b"HTTP/1.1 200\r\n\r\n")
