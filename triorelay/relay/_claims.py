"""What a claim of an id takes before there is a session: the policy's grant, and the consent of other relays.

The local side is decided first: while others are asked, the id is reserved, so that no second claim here overtakes.
"""

from typing import TYPE_CHECKING

from ..protocol import Hello, Refusal
from ._connection import Peer
from ._pending import origin_of
from ._policy import Grant, Refused, UnknownToken

if TYPE_CHECKING:
    from ._relay import Relay


def grant_of(relay: "Relay", peer: Peer, hello: Hello, digest: bytes) -> Grant:
    """Return what the policy of this moment grants, if that includes the id of the hello.

    Raises:
        Refused: it does not.
    """
    if relay.draining:
        raise Refused(Refusal.DRAINING, "the relay is shutting down")
    try:
        grant = relay.policy.grant(peer, digest)
    except UnknownToken:
        relay.wrong_tokens.count(origin_of(peer))
        raise
    if hello.id and hello.id not in grant.ids:
        raise Refused(Refusal.NOT_ALLOWED, f"{grant.principal} may not hold this id")
    return grant


async def claim_elsewhere(relay: "Relay", id: int, grant: Grant) -> None:
    """Claim `id`, which nobody here holds, among the other relays of a realm, if there are any.

    Raises:
        Refused: it is held elsewhere, or that cannot be decided now.
    """
    if relay.remote is not None:
        with relay.registry.reserve(id):
            await relay.remote.claim(id, grant)


def grant_claimed(relay: "Relay", peer: Peer, hello: Hello, digest: bytes) -> Grant:
    """As `grant_of`, for an id that is claimed; the claim is given up where nothing is granted."""
    try:
        return grant_of(relay, peer, hello, digest)
    except Refused:
        if relay.remote is not None:
            relay.remote.release(hello.id)
        raise


async def claim_any(relay: "Relay", grant: Grant) -> int:
    """Claim the highest free id of 128 to 255 that `grant` includes, and return it.

    Raises:
        Refused: there is none.
    """
    allowed = grant.ids
    if allowed.isdisjoint(range(128, 256)):
        raise Refused(Refusal.NOT_ALLOWED, f"{grant.principal} may hold no id of 128 to 255")
    while id := relay.registry.highest_free(allowed):
        try:
            await claim_elsewhere(relay, id, grant)
        except Refused as refused:
            if refused.refusal is not Refusal.TAKEN:
                raise
            allowed -= {id}
        else:
            return id
    raise Refused(Refusal.FULL, "no id of 128 to 255 is free for it")
