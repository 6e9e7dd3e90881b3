"""The words between an old relay and its successor, without input or output."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.handover._conversation import (
    LONGEST_STATE,
    LONGEST_WORD,
    Failure,
    Go,
    Greeting,
    HandoverFailed,
    Offer,
    Predecessor,
    PredecessorDied,
    Ready,
    Successor,
    encode,
)

GREETING = encode(Greeting([1], "0.1.0"))


def with_offer(size: int = 3, descriptors: int = 2) -> Successor:
    successor = Successor()
    assert successor.receive(encode(Offer(1, size, descriptors)), []) is None
    return successor


def with_state() -> Successor:
    successor = with_offer()
    assert successor.receive(b"abc", [7, 8]) == b"abc"
    return successor


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(1, 200), max_size=20))
def test_a_handover_succeeds_wherever_its_bytes_are_split(state: bytes, cuts: list[int]) -> None:
    stream = encode(Offer(1, len(state), 1)) + state
    successor, results = Successor(), []
    edges = [0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]
    for index, (start, end) in enumerate(pairwise(edges)):
        results.append(successor.receive(stream[start:end], [5] if index == 0 else []))
    assert [result for result in results if result is not None] == [state]
    for byte in encode(Go())[:-1]:
        assert successor.receive(bytes((byte,)), []) is None
    assert successor.receive(b"\n", []) == b""


def test_the_old_relay_gets_a_greeting_and_then_ready() -> None:
    predecessor = Predecessor()
    assert predecessor.receive(GREETING[:5]) is None
    assert predecessor.receive(GREETING[5:]) == Greeting([1], "0.1.0")
    assert predecessor.receive(encode(Ready())) == Ready()


def test_a_word_may_have_more_fields_in_another_release() -> None:
    said = json.dumps({"word": "greeting", "versions": [2, 1], "release": "0.2.0", "more": {}}).encode() + b"\n"
    assert Predecessor().receive(said) == Greeting([2, 1], "0.2.0")


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
        Predecessor().receive(said)


def test_a_successor_that_says_ready_before_the_offer_is_out_of_turn() -> None:
    with pytest.raises(HandoverFailed, match="out of turn"):
        Predecessor().receive(GREETING + encode(Ready()))


def test_a_successor_that_leaves_ends_the_handover() -> None:
    predecessor = Predecessor()
    predecessor.receive(GREETING)
    with pytest.raises(HandoverFailed, match="the successor left"):
        predecessor.receive(b"")


def test_the_reason_of_either_side_reaches_the_other() -> None:
    predecessor = Predecessor()
    predecessor.receive(GREETING)
    with pytest.raises(HandoverFailed, match="no room"):
        predecessor.receive(encode(Failure("no room")))
    with pytest.raises(HandoverFailed, match="not now"):
        Successor().receive(encode(Failure("not now")), [])
    with pytest.raises(HandoverFailed, match="too late"):
        with_state().receive(encode(Failure("too late")), [])


def test_a_long_reason_fits_a_word() -> None:
    line = encode(Failure("\N{PILE OF POO}\0" * LONGEST_WORD))
    assert len(line) <= LONGEST_WORD
    assert json.loads(line)["word"] == "failure"


@pytest.mark.parametrize("offer", [Offer(1, 0, 1), Offer(1, 1, 0), Offer(1, LONGEST_STATE + 1, 1), Offer(1, 1, 10**6)])
def test_an_offer_beyond_the_bounds_is_refused(offer: Offer) -> None:
    with pytest.raises(HandoverFailed, match="too large"):
        Successor().receive(encode(offer), [])


@pytest.mark.parametrize("said", [encode(Go()), GREETING, b"\0" * LONGEST_WORD])
def test_a_successor_that_is_offered_something_else_fails(said: bytes) -> None:
    with pytest.raises(HandoverFailed):
        Successor().receive(said, [])


def test_more_descriptors_than_offered_are_refused() -> None:
    with pytest.raises(HandoverFailed, match="more descriptors"):
        with_offer().receive(b"a", [7, 8, 9])


def test_a_state_without_all_its_descriptors_is_not_whole() -> None:
    successor = with_offer()
    assert successor.receive(b"abc", [7]) is None
    assert successor.receive(b"", [8]) == b"abc"


def test_nothing_but_go_lets_a_successor_serve() -> None:
    with pytest.raises(HandoverFailed):
        with_state().receive(encode(Ready()), [])


def test_an_old_relay_that_gave_up_serves_on() -> None:
    for successor in (with_offer(), with_state()):
        with pytest.raises(HandoverFailed, match="gave up"):
            successor.ended(predecessor_lives=True)


def test_a_successor_continues_from_a_whole_state_when_the_old_relay_dies() -> None:
    with_state().ended(predecessor_lives=False)


def test_without_the_whole_state_a_successor_knows_nothing() -> None:
    for successor in (Successor(), with_offer()):
        with pytest.raises(PredecessorDied):
            successor.ended(predecessor_lives=False)
