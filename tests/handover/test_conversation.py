"""The words between an old relay and its successor."""

from __future__ import annotations

import json

import pytest

from triorelay.handover._conversation import (
    LONGEST_WORD,
    Failure,
    Go,
    Greeting,
    HandoverFailed,
    Ready,
    Words,
    encode,
)

GREETING = encode(Greeting([1], "0.1.0"))


def words() -> Words:
    return Words("the successor")


def test_the_old_relay_gets_a_greeting_and_then_ready() -> None:
    heard = words()
    assert heard.take(GREETING[:5], Greeting) is None
    assert heard.take(GREETING[5:], Greeting) == Greeting([1], "0.1.0")
    assert heard.take(encode(Ready()), Ready) == Ready()


def test_a_word_may_have_more_fields_in_another_release() -> None:
    said = json.dumps({"word": "greeting", "versions": [2, 1], "release": "0.2.0", "more": {}}).encode() + b"\n"
    assert words().take(said, Greeting) == Greeting([2, 1], "0.2.0")


@pytest.mark.parametrize(
    "said",
    [
        encode(Ready()),
        encode(Go()),
        b"GET / HTTP/1.1\r\n",
        b'{"word":"greeting"}\n',
        b'{"word":"greeting","versions":["1"],"release":"0.1.0"}\n',
        b'{"word":["greeting"]}\n',
        b'{"word":"hail"}\n',
        b"{}\n",
        b"[]\n",
        b'{"word":"\xff"}\n',
        b'{"word":' + b"[" * 4000 + b"\n",
        b"x" * LONGEST_WORD,
    ],
)
def test_an_old_relay_that_gets_another_greeting_continues(said: bytes) -> None:
    with pytest.raises(HandoverFailed):
        words().take(said, Greeting)


def test_a_successor_that_says_ready_before_the_offer_is_out_of_turn() -> None:
    with pytest.raises(HandoverFailed, match="out of turn"):
        words().take(GREETING + encode(Ready()), Greeting)


def test_a_successor_that_leaves_ends_the_handover() -> None:
    heard = words()
    heard.take(GREETING, Greeting)
    with pytest.raises(HandoverFailed, match="the successor left"):
        heard.take(b"", Ready)


def test_the_reason_of_a_successor_reaches_the_old_relay() -> None:
    heard = words()
    heard.take(GREETING, Greeting)
    with pytest.raises(HandoverFailed, match="no room"):
        heard.take(encode(Failure("no room")), Ready)


def test_a_long_reason_fits_a_word() -> None:
    line = encode(Failure("\N{PILE OF POO}\0" * LONGEST_WORD))
    assert len(line) <= LONGEST_WORD
    assert json.loads(line)["word"] == "failure"
