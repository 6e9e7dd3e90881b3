"""What only a client raises."""

from __future__ import annotations

from triorelay.client import CallFailed, NotDelivered
from triorelay.protocol import EventCode, FailReason, RelayError


def test_no_route_says_how_to_wait_for_a_client() -> None:
    error = NotDelivered("B", EventCode.NO_ROUTE)
    assert isinstance(error, RelayError)
    assert (error.id, error.code) == ("B", EventCode.NO_ROUTE)
    assert str(error) == "no client holds the id B, so frames to it were dropped; wait_for('B') waits until one does"


def test_a_loss_says_what_may_have_happened() -> None:
    assert str(NotDelivered("\x0a", EventCode.DROPPED)).startswith("frames to 0x0a were lost: it left")


def test_a_call_that_ended_without_an_answer_says_why() -> None:
    assert str(CallFailed(FailReason.ENDED)) == "the call failed: the other client stopped serving"
    assert str(CallFailed(FailReason.ENDED, "the answer was lost")) == "the call failed: the answer was lost"
    assert str(CallFailed(FailReason.FAILED, "why")) == "the call failed: its handler failed: why"
