"""What may be sent."""

from __future__ import annotations

from array import array

import pytest

from triorelay.protocol import check_octets


@pytest.mark.parametrize(
    "value",
    [b"1", bytearray(b"1"), memoryview(b"1"), memoryview(array("I", [1]))],
    ids=["bytes", "bytearray", "view of octets", "view of words"],
)
def test_bytes_may_be_of_any_kind(value: object) -> None:
    check_octets(value)


@pytest.mark.parametrize("value", ["1", 1, None, [1], array("B", [1])], ids=repr)
def test_nothing_else_is_taken_and_the_answer_says_what_is(value: object) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=f"data must be bytes, bytearray or memoryview, not {kind}: encode text first"):
        check_octets(value)
    with pytest.raises(TypeError, match="payload must be bytes"):
        check_octets(value, "payload")
