"""Which clients may connect, which ids they may hold, and which ids they may send to.

1. A session proves its identity by a token, by its certificate, by its uid, or, weakest, by its address. It has one
   principal: the principal of the first of these proofs that matches one; if several match, the one named first.
2. An unknown token is refused, even if another proof would match. Tokens are compared as digests, all of them and in
   constant time, and only their digests are kept.
3. A session without a token or certificate must come from an allowed network. A principal's address does not allow
   that address.
4. Without principals every session may hold and reach every id. If one is named, sessions of no principal are refused.
5. A policy never changes. A new one replaces it, and `grant` decides again from what a session has proved.
"""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .._files import read_token
from ..protocol import ALL_IDS, RELAY, ConfigError, Refusal
from ._config import Config, Principal
from ._connection import Peer

OVERFLOW_UID = 65534
"""The uid that the kernel shows for any user that does not exist in our user namespace."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a session may do, and why.

    Attributes:
        principal: its name, for people and for comparison; empty if the session has no principal.
        ids: the ids that it may hold.
        to: the ids that it may send to, the relay's own included; None for all.
        proven: whether the principal is proven by uid, certificate or token: enough to replace its own session.
        portable: whether it is proven by certificate or token, which mean the same on every host.
        digest: of the token that it gave; empty if it gave none.
    """

    principal: str = ""
    ids: frozenset[int] = ALL_IDS
    to: frozenset[int] | None = None
    proven: bool = False
    portable: bool = False
    digest: bytes = b""


class Refused(Exception):
    """A session may not have what it asks for; `refusal` is what to answer, the message what to log."""

    def __init__(self, refusal: Refusal, why: str) -> None:
        super().__init__(why)
        self.refusal = refusal


class UnknownToken(Refused):
    """The client gave an unknown token."""


class AddressRefused(Refused):
    """The client gave no proof, and its address is not allowed."""


class Policy:
    """The policy of one configuration."""

    def __init__(self, config: Config) -> None:
        """Read the token files.

        Raises:
            ConfigError: a token file cannot be read, or its token is too short, too long or another principal's too.
        """
        self._config = config
        self._tokens: dict[bytes, Principal] = {}
        for principal in config.principals:
            if principal.token_file is not None:
                token = read_token(principal.token_file, f"principals.{principal.name}.token_file")
                other = self._tokens.setdefault(token_digest(token), principal)
                if other is not principal:
                    raise ConfigError(f"principals.{principal.name}.token_file: the token is {other.name}'s too")

    def id_without_hello(self, peer: Peer) -> int:
        """Return the id of a client that need not say hello, else 0."""
        if peer.transport == "tcp" and peer.ip is not None:
            return self._config.address_map.get(peer.ip, 0)
        return peer.bound_id

    def token_digest_of(self, principal: str) -> bytes:
        """Return the digest of a principal's token, empty if it has none."""
        return next((digest for digest, one in self._tokens.items() if one.name == principal), b"")

    def admits(self, peer: Peer) -> bool:
        """Return whether the connection may continue, by its address and by what it can still prove."""
        return self._allows(peer) or bool(
            (peer.transport == "tls" and self._config.tls_files and self._config.tls_files.client_ca)
            or (self._tokens and _may_give_token(peer))
        )

    def grant(self, peer: Peer, digest: bytes = b"", *, id: int = 0, mapped: bool = False) -> Grant:
        """Return what the session of `peer` may do.

        Args:
            peer: the other end.
            digest: of the token that it gave, empty for none.
            id: that it has or claims, 0 for none yet.
            mapped: whether it has that id without a hello.

        Raises:
            Refused: it may do nothing, or not hold the id.
        """
        grant = self._grant_by_token(peer, digest) if digest else self._grant_by_peer(peer)
        if id and id not in grant.ids:
            raise Refused(Refusal.NOT_ALLOWED, f"{grant.principal} may not hold this id")
        if mapped and self.id_without_hello(peer) != id:
            raise Refused(Refusal.NOT_ALLOWED, "its address is not in the map any more")
        return grant

    def _grant_by_token(self, peer: Peer, digest: bytes) -> Grant:
        if not _may_give_token(peer):
            raise Refused(Refusal.AUTHENTICATION, "a token in the clear: tokens need TLS, Unix or loopback")
        found = [principal for known, principal in self._tokens.items() if hmac.compare_digest(known, digest)]
        if not found:
            raise UnknownToken(Refusal.AUTHENTICATION, "unknown token")
        return replace(_grant_of(found[0]), digest=digest)

    def _grant_by_peer(self, peer: Peer) -> Grant:
        is_allowed = self._allows(peer)
        if not (peer.certificate_names or is_allowed):
            why = "its address is not allowed, and it gave no certificate or token"
            raise AddressRefused(Refusal.AUTHENTICATION, why)
        if not self._config.principals:
            return _grant_without_principals(peer)
        for principal in self._principals_by(peer):
            if principal.certificate is not None or is_allowed:
                return _grant_of(principal)
        raise Refused(Refusal.AUTHENTICATION, "it is no principal of the policy")

    def _principals_by(self, peer: Peer) -> Iterator[Principal]:
        principals = self._config.principals
        yield from (each for each in principals if each.certificate in peer.certificate_names)
        yield from (each for each in principals if each.uid is not None and each.uid == peer.uid != OVERFLOW_UID)
        yield from (
            each for each in principals if each.address is not None and peer.ip is not None and peer.ip in each.address
        )

    def _allows(self, peer: Peer) -> bool:
        return peer.ip is None or any(peer.ip in network for network in self._config.allow)


def token_digest(token: bytes) -> bytes:
    """Return the fixed-length digest of a token; empty for no token."""
    return hashlib.sha256(token).digest() if token else b""


def _may_give_token(peer: Peer) -> bool:
    return peer.transport != "tcp" or (peer.ip is not None and peer.ip.is_loopback)


def _grant_of(principal: Principal) -> Grant:
    to = None if principal.to >= ALL_IDS else principal.to | {RELAY}
    portable = principal.certificate is not None or principal.token_file is not None
    return Grant(principal.name, principal.ids, to, proven=principal.address is None, portable=portable)


def _grant_without_principals(peer: Peer) -> Grant:
    if peer.certificate_names:
        return Grant(f"certificate:{peer.certificate_names[0]}", proven=True, portable=True)
    if peer.uid is not None:
        return Grant(f"uid:{peer.uid}", proven=peer.uid != OVERFLOW_UID)
    return Grant(f"address:{peer.ip}" if peer.ip else "")
