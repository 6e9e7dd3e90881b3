"""From settings as users write them to the configurations of the relay, its admin endpoint and its part in a realm.

A setting that has no meaning, is out of bounds or contradicts another is a UsageError: one line says which and why.
`sockets` are listening sockets that were handed over to the relay.
"""

import grp
import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from ..protocol import (
    ALL_IDS,
    MAX_PATH_BYTES,
    Address,
    ConfigError,
    UnixAddress,
    parse_host_port,
    parse_id,
    parse_id_set,
)
from ..relay import (
    ANY_NETWORK,
    PRIVATE_NETWORKS,
    Config,
    IPAddress,
    Network,
    Principal,
    TlsFiles,
    known_network,
)
from ..relay._config import LAST_GROUP
from ._options import parse_admin_address, parse_unix
from ._settings import PrincipalSettings
from ._sources import Loaded

if TYPE_CHECKING:
    from ..admin import AdminConfig
    from ..cluster import ClusterConfig
    from ..recording import Ring

DEFAULT_PATH = "server_socket"
"""The article's path; a relay listens there by default."""


def relay_config(loaded: Loaded, *, has_sockets: bool = False) -> Config:
    """Return the relay's configuration; with sockets no listener need be named."""
    settings = loaded.settings
    listeners = settings.unix or settings.tcp or settings.tls or has_sockets
    try:
        return Config(
            unix=tuple(dict.fromkeys(map(parse_unix, settings.unix))) if listeners else (DEFAULT_PATH,),
            tcp=tuple(dict.fromkeys(loaded.parse("tcp", text, parse_listener) for text in settings.tcp)),
            tls=tuple(dict.fromkeys(loaded.parse("tls", text, parse_listener) for text in settings.tls)),
            tls_files=_tls_files(loaded),
            allow=tuple(network for text in settings.allow for network in loaded.parse("allow", text, parse_networks)),
            socket_mode=loaded.parse("socket_mode", settings.socket_mode, parse_mode),
            socket_group=_socket_group(loaded),
            duplicate=settings.duplicate,
            overflow=settings.overflow,
            queue_bytes=settings.queue_bytes,
            stall_timeout=settings.stall_timeout,
            hello_timeout=settings.hello_timeout,
            drain_timeout=settings.drain_timeout,
            hold_frames=settings.hold_frames,
            hold_time=settings.hold_time,
            max_pending=settings.max_pending,
            max_pending_per_address=settings.max_pending_per_address,
            max_clients_per_principal=settings.max_clients_per_principal,
            share=frozenset() if settings.share is None else loaded.parse("share", settings.share, parse_id_set),
            address_map=_address_map(loaded),
            principals=tuple(_principal(loaded, name, written) for name, written in settings.principals.items()),
        )
    except ConfigError as error:
        raise loaded.locate(error) from None


def _address_map(loaded: Loaded) -> dict[IPAddress, int]:
    ids: dict[IPAddress, int] = {}
    for text, id in loaded.settings.address_map.items():
        address = loaded.parse("address_map", text, parse_ip)
        if address in ids:
            raise ConfigError(f"address_map.{text} is {address}, which has an id already")
        ids[address] = loaded.parse("address_map", id, parse_id, text)
    return ids


def _socket_group(loaded: Loaded) -> int | None:
    group = loaded.settings.socket_group
    return None if group is None else loaded.parse("socket_group", group, parse_group)


def _tls_files(loaded: Loaded) -> TlsFiles | None:
    certificate, key, client_ca = loaded.settings.tls_cert, loaded.settings.tls_key, loaded.settings.tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(f"tls_{'key' if certificate else 'cert'} is missing: TLS needs both tls_cert and tls_key")
    return TlsFiles(
        certificate=loaded.path("tls_cert", certificate),
        key=loaded.path("tls_key", key),
        client_ca=None if client_ca is None else loaded.path("tls_client_ca", client_ca),
    )


def _principal(loaded: Loaded, name: str, written: PrincipalSettings) -> Principal:
    def parse_ids(key: str, text: str | None) -> frozenset[int]:
        if text is None:
            return ALL_IDS
        return loaded.parse("principals", text, parse_id_set, name, key)

    address = written.address
    return Principal(
        name=name,
        uid=written.uid,
        certificate=written.certificate,
        token_file=None if written.token_file is None else loaded.path("principals", written.token_file),
        address=None if address is None else loaded.parse("principals", address, parse_network, name, "address"),
        ids=parse_ids("ids", written.ids),
        to=parse_ids("to", written.to),
    )


def admin_configs(loaded: Loaded, relay: Config, sockets: Sequence[socket.socket] = ()) -> "tuple[AdminConfig, ...]":
    """Return where the relay's admin endpoint listens; nothing if it has none. By default beside the first Unix path.

    The Unix socket beside the relay's own is for the relay's user alone. It asks for a token only where no other
    address is named, so that the token is meant for it.
    """
    settings = loaded.settings
    named = admin_addresses(loaded)
    beside = None if "none" in settings.admin else _beside(relay, sockets)
    token_file = settings.admin_token_file
    token = None if token_file is None else loaded.path("admin_token_file", token_file)
    hosts = () if settings.admin_host is None else (settings.admin_host,)
    if not named and beside is None:
        return ()
    from ..admin import AdminConfig

    try:
        configs = [AdminConfig(address=address, token_file=token, hosts=hosts) for address in dict.fromkeys(named)]
        if beside is not None and beside not in named:
            configs.insert(0, AdminConfig(address=beside, token_file=None if named else token))
    except ConfigError as error:
        raise loaded.locate(error) from None
    return tuple(configs)


def admin_addresses(loaded: Loaded) -> list[Address]:
    """Return the addresses of the admin endpoint that the settings name."""
    return [loaded.parse("admin", text, parse_admin_address) for text in loaded.settings.admin if text != "none"]


def _beside(relay: Config, sockets: Sequence[socket.socket]) -> Address | None:
    """Return the endpoint's default; None if the relay has no Unix socket, or one with a path that is too long."""
    # Beside an abstract name there would be one that every user of this host may connect to.
    paths = [path for path in unix_paths(relay, sockets) if not UnixAddress(path).is_abstract]
    return UnixAddress(f"{paths[0]}.admin") if paths and has_room(f"{paths[0]}.admin") else None


def has_room(path: str) -> bool:
    """Return whether the path is short enough for a Unix socket."""
    return len(os.fsencode(path)) <= MAX_PATH_BYTES


def unix_paths(relay: Config, sockets: Sequence[socket.socket]) -> list[str]:
    """Return the paths and abstract names of the relay's Unix sockets: its own, then those that were handed over."""
    names = [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]
    return [*relay.unix, *(f"@{os.fsdecode(name[1:])}" if isinstance(name, bytes) else name for name in names)]


def ring_of(loaded: Loaded) -> "Ring | None":
    """Return the relay's flight recorder, empty; None if it is off."""
    size = loaded.settings.flight_recorder
    if size == 0:
        return None
    from ..recording import Ring

    try:
        return Ring(size)
    except ValueError as error:
        raise loaded.locate(ConfigError(f"flight_recorder {error}")) from None


def cluster_config(loaded: Loaded) -> "ClusterConfig | None":
    """Return the settings of the relay's part in a realm, None if it is in none."""
    settings = loaded.settings
    credentials = settings.cluster_credentials
    if not settings.cluster:
        return None
    from ..cluster import ClusterConfig

    try:
        return ClusterConfig(
            urls=settings.cluster,
            realm=settings.realm,
            credentials=None if credentials is None else loaded.path("cluster_credentials", credentials),
            required=settings.cluster_required,
            fallback=settings.cluster_fallback,
            name=settings.cluster_name,
            lease=settings.cluster_lease,
        )
    except ConfigError as error:
        raise loaded.locate(error) from None


def parse_listener(text: str) -> tuple[str | None, int]:
    """Return host and port of `[HOST:]PORT`; no host is every interface."""
    address = parse_host_port(text)
    return address.host or None, address.port


def parse_ip(text: str) -> IPAddress:
    """Return an IP address as the relay knows peers by it: an IPv4 address mapped into IPv6 is that IPv4 address."""
    return known_network(ip_network(ip_address(text))).network_address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks that an `--allow` names."""
    named = {"private": PRIVATE_NETWORKS, "any": ANY_NETWORK}
    try:
        return named.get(text) or (parse_network(text),)
    except ValueError as error:
        raise ValueError(f"{error}; private and any are allowed too") from None


def parse_network(text: str) -> Network:
    """Return the network in CIDR notation; an address alone is a network of one."""
    try:
        return known_network(ip_network(text))
    except ValueError as error:
        raise ValueError(f"expected a network such as 10.0.0.0/8 or fd00::/8: {error}") from None


def parse_mode(text: str) -> int:
    """Return permission bits written in octal."""
    try:
        mode = int(text.removeprefix("0o"), 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"expected octal permission bits such as 0660, not {text!r}")
    return mode


def parse_group(text: str) -> int:
    """Return the id of the group of this name or number."""
    if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= LAST_GROUP:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(f"no group is called {text!r}; give a name of /etc/group, or a number") from None
