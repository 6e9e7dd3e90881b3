"""What relays tell one another over the engine, and what becomes of anything else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.cluster._wire import (
    BadMessage,
    Bundle,
    Credit,
    Held,
    KeyValue,
    LeaseValue,
    Message,
    Piece,
    Question,
    decode,
    decode_ids,
    decode_key,
    encode,
    encode_ids,
    encode_key,
    frames_of,
    id_of,
    key_of,
    split_by_source,
)

NONCE = "0123456789abcdef"
ids = st.integers(1, 255)
counts = st.integers(0, 2**63 - 1)
nonces = st.text("0123456789abcdef", min_size=16, max_size=16)
frames = st.binary().map(lambda data: data[len(data) & 1 :])
of_one_source = st.builds(Piece, ids, counts, counts, ids, st.binary())
pieces = of_one_source | st.builds(Piece, ids, counts, counts, st.just(0), frames)
credits_ = st.builds(Credit, counts, ids, counts, counts)
messages = st.one_of(
    st.builds(Bundle, nonces, counts, st.dictionaries(ids, counts), st.lists(pieces), st.lists(credits_)),
    st.builds(Question, nonces, ids, counts, st.text(max_size=9)),
    st.builds(Held, nonces, ids, counts),
)


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary())
def test_other_bytes_are_garbage_and_nothing_worse(data: bytes) -> None:
    with suppress(BadMessage):
        decode(data)
    with suppress(BadMessage):
        decode_key(data, 1)


@given(messages, st.data())
def test_a_message_that_was_changed_is_a_message_or_garbage(message: Message, data: st.DataObject) -> None:
    changed = bytearray(encode(message))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] = data.draw(st.integers(0, 255))
    with suppress(BadMessage):
        decode(bytes(changed))


@pytest.mark.parametrize(
    "message",
    [
        Bundle(NONCE, 1, {66: 1}, [Piece(65, 1, 0, 0, b"B")], []),
        Bundle(NONCE, 1, {66: 1}, [Piece(0, 1, 0, 0, b"B1")], []),
        Bundle("nobody.>", 1, {66: 1}, [Piece(65, 1, 0, 0, b"B1")], []),
        Question("nobody.>", 65, 1, ""),
        Held(NONCE, 256, 1),
    ],
    ids=["half a frame", "no id", "no nonce", "no nonce of an asker", "no id that there is"],
)
def test_what_has_no_meaning_is_garbage(message: Message) -> None:
    with pytest.raises(BadMessage):
        decode(encode(message))


@given(st.none() | st.frozensets(st.integers(0, 255)))
def test_a_lease_keeps_the_ids_that_its_client_may_send_to(to: frozenset[int] | None) -> None:
    lease = LeaseValue(relay=NONCE, name="here", token=7, to=encode_ids(to))
    value = KeyValue(leases=[lease])
    assert decode_key(encode_key(value), 9) == value
    assert decode_ids(lease.to) == to


def test_a_lease_that_was_just_created_has_the_revision_as_its_token() -> None:
    new, old = LeaseValue(relay=NONCE, name="here"), LeaseValue(relay="f" * 16, name="there", token=3)
    read = decode_key(encode_key(KeyValue(shared=True, leases=[old, new])), 7)
    assert [lease.token for lease in read.leases] == [3, 7]


@pytest.mark.parametrize(
    ("shared", "relays"),
    [(False, [NONCE, "f" * 16]), (True, [NONCE, NONCE]), (True, [])],
    ids=["two that do not share", "one relay twice", "no lease"],
)
def test_a_key_that_contradicts_itself_is_garbage(shared: bool, relays: list[str]) -> None:
    value = KeyValue(shared=shared, leases=[LeaseValue(relay=relay, name="here") for relay in relays])
    with pytest.raises(BadMessage):
        decode_key(encode_key(value), 1)


def test_a_key_names_its_id() -> None:
    assert [id_of(key_of(id)) for id in range(1, 256)] == list(range(1, 256))


@pytest.mark.parametrize("key", ["", "00", "4A", "041", "100", "zz", "-1", "4_1", " 41"])
def test_other_keys_are_garbage(key: str) -> None:
    with pytest.raises(BadMessage):
        id_of(key)


@given(st.binary(), ids)
def test_frames_of_one_source_are_its_data(data: bytes, source: int) -> None:
    received, sources = frames_of(Piece(65, 1, 0, source, data))
    assert (received[0::2], received[1::2]) == (bytes((source,)) * len(data), data)
    assert sources == [(source, len(data))]


@given(frames, ids)
def test_frames_are_split_by_their_source(data: bytes, source: int) -> None:
    of, others = split_by_source(data, source)
    assert of[0::2] == bytes((source,)) * (len(of) // 2)
    assert source not in others[0::2]
    assert sorted(
        [of[at : at + 2] for at in range(0, len(of), 2)] + [others[at : at + 2] for at in range(0, len(others), 2)]
    ) == sorted(data[at : at + 2] for at in range(0, len(data), 2))
