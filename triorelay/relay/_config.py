"""What `serve` needs to know, in parsed form. The command line turns text into this; a library user writes it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from .._fields import check_fields
from ..protocol import ALL_IDS, ConfigError

Network = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address

PRIVATE_NETWORKS: tuple[Network, ...] = (
    IPv4Network("127.0.0.0/8"),
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("169.254.0.0/16"),
    IPv6Network("::1/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("fc00::/7"),
)
"""What `--allow private` means: loopback, RFC 1918, link-local and unique local addresses."""

MAPPED_BITS = 96
"""Bits before the IPv4 address in one that is mapped into IPv6, ::ffff:0:0/96."""

LAST_PORT = 65535

LAST_USER = LAST_GROUP = 2**32 - 2
"""The kernel takes the next number, 2**32 - 1, to mean that the owner or the group does not change."""

ANY_NETWORK: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""What `--allow any` means."""


def known_network(network: Network) -> Network:
    """Return a network as the relay knows peers in it: mapped into IPv6, an IPv4 network is that network.

    Raises:
        ValueError: it has a zone, which the relay does not know of peers.
    """
    first = network.network_address
    if isinstance(first, IPv4Address):
        return network
    if first.scope_id is not None:
        raise ValueError(f"leave out the zone %{first.scope_id}: peers are known without theirs")
    if first.ipv4_mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return IPv4Network((first.ipv4_mapped, network.prefixlen - MAPPED_BITS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An identity that a policy names. Exactly one of `uid`, `certificate`, `token_file`, `address` is given.

    Attributes:
        name: as the policy calls it.
        uid: the peer's user on a Unix socket (SO_PEERCRED).
        certificate: a subject alternative name of the client's certificate.
        token_file: a file with the token, 16 to 255 bytes; white space around it is stripped.
        address: the network that the peer's address is in; the weakest proof.
        ids: which ids it may hold.
        to: which ids it may send to.

    Raises:
        ConfigError: a value of the wrong type, an id that is not from 1 to 255, a uid that no user has, an address that
            no peer is known by, or not exactly one proof.
    """

    name: str
    uid: int | None = None
    certificate: str | None = None
    token_file: Path | None = None
    address: Network | None = None
    ids: frozenset[int] = ALL_IDS
    to: frozenset[int] = ALL_IDS

    def __post_init__(self) -> None:
        setting = f"principals.{self.name}"
        check_fields(self, ConfigError, f"{setting}.")
        _require_ids(f"{setting}.ids", self.ids)
        _require_ids(f"{setting}.to", self.to)
        if self.address is not None:
            _require_known(f"{setting}.address", self.address)
        if self.uid is not None and not 0 <= self.uid <= LAST_USER:
            raise ConfigError(f"{setting}.uid must be from 0 to {LAST_USER}, not {self.uid}")
        proofs = (self.uid, self.certificate, self.token_file, self.address)
        if sum(proof is not None for proof in proofs) != 1:
            raise ConfigError(f"{setting} needs exactly one of uid, certificate, token_file, address")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of the TLS listeners.

    Attributes:
        certificate: the chain, the server's own certificate first.
        key: its private key.
        client_ca: where given, clients must have a certificate of this authority.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one relay. Times are in seconds, 0 meaning never; sizes in bytes.

    Attributes:
        unix: paths of Unix sockets to listen on.
        tcp: (host, port) pairs to listen on over TCP; host None is every interface, port 0 any free one.
        tls: the same with TLS; needs `tls_files`.
        tls_files: certificate and key of the TLS listeners.
        allow: networks that may connect without a certificate or token.
        socket_mode: permission bits of the Unix sockets.
        socket_group: group id of the Unix sockets, None to leave it.
        duplicate: what a second claim of an id does.
        overflow: what a full destination does to a sender.
        queue_bytes: bytes that may wait for one destination before the next chunk finds it full.
        stall_timeout: how long a destination may take nothing while frames wait for it.
        hello_timeout: how long a session may take to say hello.
        drain_timeout: how long shutting down may take.
        hold_frames: frames kept for an id that no client holds; 0 keeps none.
        hold_time: how long such a frame is kept.
        max_pending: sessions without an id, in all.
        max_pending_per_address: the same from one IPv4 address, IPv6 /64 or uid.
        max_clients_per_principal: clients that may have ids at a time for one principal, or for one uid, certificate or
            address where there is no policy; 0 for any number.
        share: ids that are always shared, also by clients that bind a path and cannot ask.
        address_map: peer addresses of TCP clients that cannot say hello, and their ids.
        principals: the policy; if empty, each client that may connect may hold and reach every id.

    Raises:
        ConfigError: settings that have the wrong type, are out of bounds, or exclude one another.
    """

    unix: tuple[str, ...] = ()
    tcp: tuple[tuple[str | None, int], ...] = ()
    tls: tuple[tuple[str | None, int], ...] = ()
    tls_files: TlsFiles | None = None
    allow: tuple[Network, ...] = PRIVATE_NETWORKS
    socket_mode: int = 0o660
    socket_group: int | None = None
    duplicate: Literal["reject", "replace"] = "reject"
    overflow: Literal["wait", "drop"] = "wait"
    queue_bytes: int = 65536
    stall_timeout: float = 10.0
    hello_timeout: float = 5.0
    drain_timeout: float = 5.0
    hold_frames: int = 0
    hold_time: float = 10.0
    max_pending: int = 512
    max_pending_per_address: int = 255
    max_clients_per_principal: int = 0
    share: frozenset[int] = frozenset()
    address_map: Mapping[IPAddress, int] = field(default_factory=dict)
    principals: tuple[Principal, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, ConfigError)
        bounds: list[tuple[str, float, float, float]] = [
            ("queue_bytes", self.queue_bytes, 2, 1 << 30),
            ("stall_timeout", self.stall_timeout, 0, 1e6),
            ("hello_timeout", self.hello_timeout, 0, 1e6),
            ("drain_timeout", self.drain_timeout, 0, 1e6),
            ("hold_frames", self.hold_frames, 0, self.queue_bytes // 2),
            ("hold_time", self.hold_time, 0, 1e6),
            ("max_pending", self.max_pending, 1, 1 << 20),
            ("max_pending_per_address", self.max_pending_per_address, 1, 1 << 20),
            ("max_clients_per_principal", self.max_clients_per_principal, 0, 255),
            ("socket_mode", self.socket_mode, 0, 0o777),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise ConfigError(f"{name} must be from {low:.15g} to {high:.15g}, not {value:.15g}")
        for _, port in (*self.tcp, *self.tls):
            if not 0 <= port <= LAST_PORT:
                raise ConfigError(f"a port must be from 0 to {LAST_PORT}, not {port}")
        if self.socket_group is not None and not 0 <= self.socket_group <= LAST_GROUP:
            raise ConfigError(f"socket_group must be from 0 to {LAST_GROUP}, not {self.socket_group}")
        _require_ids("share", self.share)
        _require_ids("address_map", self.address_map.values())
        if bool(self.tls) and self.tls_files is None:
            raise ConfigError("a TLS listener needs tls_cert and tls_key")
        for network in self.allow:
            _require_known(f"allow {network}", network)
        for address in self.address_map:
            _require_known(f"address_map.{address}", ip_network(address))


def _require_ids(setting: str, ids: Iterable[int]) -> None:
    for id in ids:
        if id not in ALL_IDS:
            raise ConfigError(f"{setting}: an id is a number from 1 to 255, not {id}")


def _require_known(setting: str, network: Network) -> None:
    try:
        known = known_network(network)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
    if known != network:
        raise ConfigError(f"{setting}: no peer is known by this address: write {known}")
