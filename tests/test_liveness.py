"""When a TCP peer counts as gone, as the kernel's tcp_info tells."""

from __future__ import annotations

import pytest

from triorelay._liveness import SILENCE, is_silent


class Asked:
    """A socket of which the kernel says this much."""

    def __init__(self, retransmits: int, probes: int, last_ack: float) -> None:
        self._info = bytearray(104)
        self._info[2], self._info[3] = retransmits, probes
        self._info[56:60] = int(1000 * last_ack).to_bytes(4, "little")

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return bytes(self._info[:size])


class Broken:
    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        raise OSError


@pytest.mark.parametrize(
    ("retransmits", "probes", "last_ack", "gone"),
    [
        (0, 0, 1000.0, False),
        (1, 0, SILENCE - 0.1, False),
        (1, 0, SILENCE, True),
        (0, 1, SILENCE, True),
        (3, 3, 0.5, False),
    ],
)
def test_a_peer_that_owes_an_acknowledgment_for_long_has_vanished(
    retransmits: int, probes: int, last_ack: float, gone: bool
) -> None:
    assert is_silent(Asked(retransmits, probes, last_ack)) is gone  # type: ignore[arg-type]


def test_a_socket_that_cannot_be_asked_is_left_to_its_session() -> None:
    assert not is_silent(Broken())  # type: ignore[arg-type]
