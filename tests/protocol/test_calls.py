"""Calls on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.protocol import LONGEST_FAIL, CallKind, CallMessage, FailReason, RemoteProtocolError, decode_call

NUMBERS = st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("message", "bytes_on_the_wire"),
    [
        (CallMessage(CallKind.CALL, 1, b"21"), b"\4\0\0\0\x0121"),
        (CallMessage(CallKind.REPLY, 0x01020304, b""), b"\5\1\2\3\4"),
        (CallMessage(CallKind.FAIL, 2, reason=FailReason.FAILED, text="why"), b"\6\0\0\0\2\2why"),
        (CallMessage(CallKind.CANCEL, 0xFFFFFFFF), b"\7\xff\xff\xff\xff"),
    ],
)
def test_messages_as_the_wire_page_shows_them(message: CallMessage, bytes_on_the_wire: bytes) -> None:
    assert message.encode() == bytes_on_the_wire
    assert decode_call(bytes_on_the_wire) == message


@given(kind=st.sampled_from([CallKind.CALL, CallKind.REPLY]), number=NUMBERS, payload=st.binary(max_size=2000))
def test_payloads_come_out_as_they_went_in(kind: CallKind, number: int, payload: bytes) -> None:
    message = CallMessage(kind, number, payload)
    assert decode_call(message.encode()) == message


@given(number=NUMBERS, reason=st.integers(0, 255), text=st.text(max_size=2000))
def test_a_failure_has_its_reason_and_as_much_of_its_text_as_fits(number: int, reason: int, text: str) -> None:
    encoded = CallMessage(CallKind.FAIL, number, reason=reason, text=text).encode()
    found = decode_call(encoded)
    said = text.encode(errors="replace").decode()
    assert len(encoded) <= 6 + 1024
    assert (found.kind, found.number, found.reason) == (CallKind.FAIL, number, reason)
    assert said.startswith(found.text)
    assert found.text == said or len(said.encode()) > 1024 >= len(found.text.encode()) > 1024 - 4


@given(message=st.binary(max_size=40))
def test_any_message_is_a_call_or_an_error(message: bytes) -> None:
    try:
        found = decode_call(message)
    except RemoteProtocolError:
        return
    if found.kind is not CallKind.FAIL:  # whose text need not have been UTF-8
        assert found.encode() == message


@pytest.mark.parametrize("message", [b"", b"\3\0\0\0\1", b"\x08\0\0\0\1", b"\4\0\0\1", b"\6\0\0\0\1", b"\7\0\0\0\1x"])
def test_what_is_no_call_is_refused(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_call(message)


def test_the_numbers_on_the_wire_stand() -> None:
    assert [(kind.name, kind.value) for kind in CallKind] == [("CALL", 4), ("REPLY", 5), ("FAIL", 6), ("CANCEL", 7)]
    reasons = [("NOT_SERVED", 1), ("FAILED", 2), ("TOO_MANY", 3), ("ENDED", 4)]
    assert [(reason.name, reason.value) for reason in FailReason] == reasons


def test_a_long_text_is_cut_at_1024_bytes_and_not_in_the_middle_of_a_character() -> None:
    assert LONGEST_FAIL == len(CallMessage(CallKind.FAIL, 1, reason=1, text="x" * 2000).encode()) == 1030
    assert decode_call(CallMessage(CallKind.FAIL, 1, reason=1, text="x" + 600 * "\u00e4").encode()).text == (
        "x" + 511 * "\u00e4"
    )
