"""Whole messages in the runs of pairs, and what is JSON of them."""

from __future__ import annotations

import json

import pytest

from triorelay.protocol import encode_message
from triorelay.recording._messages import PairMessages, json_object, schema_of

PAIR = (65, 66)


def test_a_message_is_found_whatever_runs_it_is_cut_into() -> None:
    messages, data = PairMessages(), b"\0" + encode_message(b"one") + encode_message(b"two")
    assert [payload for byte in data for payload in messages.feed(PAIR, bytes((byte,)))] == [b"one", b"two"]


def test_messages_of_pairs_do_not_mix() -> None:
    messages, data = PairMessages(), encode_message(b"from each")
    assert messages.feed((1, 9), data[:5]) == []
    assert messages.feed((2, 9), data[:5]) == []
    assert messages.feed((1, 9), data[5:]) == [b"from each"]
    assert messages.feed((2, 9), data[5:]) == [b"from each"]


def test_what_is_no_message_leaves_nothing_and_hides_nothing() -> None:
    messages = PairMessages()
    assert messages.feed(PAIR, b"plain bytes\0more\0") == []
    assert messages.feed(PAIR, encode_message(b"after them")) == [b"after them"]


def test_unfinished_messages_are_bounded_and_the_oldest_is_forgotten() -> None:
    messages = PairMessages(unfinished_bytes=1000)
    data = encode_message(b"x" * 400)
    for source in (1, 2, 3):
        assert messages.feed((source, 9), data[:390]) == []
    assert messages.feed((1, 9), data[390:]) == []
    assert messages.feed((2, 9), data[390:]) == [b"x" * 400]
    assert messages.feed((3, 9), data[390:]) == [b"x" * 400]
    # Nothing is left to be counted, so as many fit again.
    for source in (4, 5):
        assert messages.feed((source, 9), data[:390]) == []
        assert messages.feed((source, 9), data[390:]) == [b"x" * 400]


def test_a_pair_that_never_ends_a_message_counts_no_more_than_a_message_may_have() -> None:
    messages = PairMessages(unfinished_bytes=5 << 20)
    begun = encode_message(b"begun before")
    assert messages.feed((1, 9), begun[:5]) == []
    for _ in range(100):
        assert messages.feed((2, 9), b"x" * (1 << 20)) == []
    assert messages.feed((1, 9), begun[5:]) == [b"begun before"]


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b"21.5", b'{"value":21.5}'),
        (b' "text" ', b'{"value": "text" }'),
        (b"[1]", b'{"value":[1]}'),
        (b"plain", None),
        (b"", None),
        (b"\xff", None),
        (b"NaN", None),
        (b"[" * 100_000, None),
        (b"1" * 5000, None),
    ],
)
def test_json_is_shown_as_an_object(payload: bytes, shown: bytes | None) -> None:
    found = json_object(payload)
    assert found == shown
    assert found is None or isinstance(json.loads(found), dict)


def test_json_may_be_as_deep_as_json_can_be() -> None:
    deep = b'{"a":' * 400 + b"[" * 400 + b"1" + b"]" * 400 + b"}" * 400
    assert json_object(deep) == deep
    schema = json.loads(schema_of(deep))
    for _ in range(10):
        schema = schema["properties"]["a"]
    assert schema["type"] == "object"


def test_a_schema_names_the_fields_of_an_example() -> None:
    schema = json.loads(schema_of(b'{"name": "arm", "at": {"x": 1.5}, "on": true, "list": [1], "none": null}'))
    assert schema == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "at": {"type": "object", "properties": {"x": {"type": "number"}}},
            "on": {"type": "boolean"},
            "list": {"type": "array", "items": {"type": "number"}},
            "none": {},
        },
    }
