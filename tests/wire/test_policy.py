"""The wire page with a policy: which client sees which, and what is denied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wire.client import DROPPED, EVENTS, JOINED, LEFT, LIST, SYNCED, event

if TYPE_CHECKING:
    from pathlib import Path

    from tests.wire.conftest import StartRelay
    from tests.wire.relay_process import RelayProcess

# X and Y may send to each other, and not even to themselves; Z has nothing to do with either.
POLICY = """
[principals.x]
token_file = "x.token"
ids = "X"
to = "Y"
[principals.y]
token_file = "y.token"
ids = "Y"
to = "X"
[principals.z]
token_file = "z.token"
ids = "Z"
to = "Z"
"""
X, Y, Z = (name * 16 for name in (b"x", b"y", b"z"))


@pytest.fixture
def relay(start_relay: StartRelay, tmp_path: Path) -> RelayProcess:
    for token in (X, Y, Z):
        (tmp_path / f"{token[:1].decode()}.token").write_bytes(token)
    return start_relay(config=POLICY)


def test_joined_and_left_tell_only_of_ids_that_the_session_may_send_to_or_hear_from(relay: RelayProcess) -> None:
    z = relay.claim(b"Z", EVENTS, token=Z)
    x = relay.hello(b"X", EVENTS, token=X)
    x.expect(b"X\0", event(SYNCED))
    y = relay.claim(b"Y", token=Y)
    x.expect(event(JOINED, b"Y"))
    y.close()
    x.expect(event(LEFT, b"Y"))
    z.ping(1)
    x.send(event(LIST))
    x.expect(event(SYNCED))
    z.send(event(LIST))
    z.expect(event(JOINED, b"Z"), event(SYNCED))


def test_what_is_not_allowed_is_dropped_and_counted(relay: RelayProcess) -> None:
    x, y, z = relay.claim(b"X", EVENTS, token=X), relay.claim(b"Y", token=Y), relay.claim(b"Z", token=Z)
    x.expect(event(JOINED, b"Y"))
    x.send(b"Z1", b"Y1")
    y.expect(b"X1")
    x.expect(event(DROPPED, b"Z"))
    x.ping(1)
    z.settle(b"Z")
    assert relay.stop()["dropped.denied"] == 1
