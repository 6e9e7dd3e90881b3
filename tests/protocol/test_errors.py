"""Errors: their class says which side is at fault, their message what happened, and they survive a copy."""

from __future__ import annotations

import copy
import pickle

import pytest

from triorelay.protocol import (
    CloseReason,
    ConfigError,
    ConnectionLost,
    HelloRefused,
    LocalProtocolError,
    ProtocolError,
    Refusal,
    RelayError,
    RemoteProtocolError,
)
from triorelay.protocol._hello import BadHello


def test_every_error_is_a_relay_error() -> None:
    for error in (
        ProtocolError,
        LocalProtocolError,
        RemoteProtocolError,
        HelloRefused,
        ConnectionLost,
        ConfigError,
        BadHello,
    ):
        assert issubclass(error, RelayError)


def test_a_protocol_error_says_which_side_is_at_fault() -> None:
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert str(RemoteProtocolError("what they did")) == "what they did"
    with pytest.raises(TypeError, match="abstract"):
        ProtocolError("of neither side")


@pytest.mark.parametrize(
    ("id", "code", "message"),
    [
        (65, Refusal.TAKEN, "the relay refused id A: the id is taken (code 1)"),
        (0, 4, "the relay refused id any: the relay is full (code 4)"),
        (10, 99, "the relay refused id 0x0a: unknown reason (code 99)"),
    ],
)
def test_a_refusal_names_id_and_reason(id: int, code: int, message: str) -> None:
    error = HelloRefused(id, code)
    assert (error.id, error.code) == (chr(id) if id else "", code)
    assert str(error) == message


def test_a_lost_connection_says_why() -> None:
    assert str(ConnectionLost(CloseReason.SLOW_CONSUMER)) == "the connection to the relay ended: slow consumer"
    assert str(ConnectionLost(CloseReason.RESET, "it broke")) == "the connection to the relay ended: it broke"
    assert ConnectionLost(CloseReason.RESET, "it broke").reason is CloseReason.RESET


@pytest.mark.parametrize(("when", "ago"), [(0.0, ""), (0.04, ""), (0.05, " 0.1 s ago"), (1.0, " 1.0 s ago")])
def test_a_loss_that_is_reported_later_says_when_it_was(when: float, ago: str) -> None:
    lost = ConnectionLost(CloseReason.RESET, "it broke", when=when)
    assert str(lost) == f"the connection to the relay ended{ago}: it broke"


@pytest.mark.parametrize(
    "error",
    [
        HelloRefused(id=65, code=1),
        ConnectionLost(CloseReason.REPLACED),
        ConnectionLost(reason=CloseReason.RESET, detail="it broke", when=1.0, restored=True),
        BadHello(message="no hello", answer=b"A\x03"),
        LocalProtocolError("too long"),
    ],
    ids=repr,
)
def test_an_error_survives_copying_and_pickling(error: RelayError) -> None:
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
