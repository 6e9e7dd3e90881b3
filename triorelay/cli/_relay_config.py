"""From settings as they are written to the `Config` that a relay takes."""

import grp
from ipaddress import ip_address, ip_network

from ..protocol import ConfigError, parse_host_port, parse_id, parse_id_set
from ..relay import ANY_NETWORK, PRIVATE_NETWORKS, Config, Network, Principal, TlsFiles
from ._settings import PrincipalSettings
from ._sources import Given

DEFAULT_PATH = "server_socket"
"""The article's own; where a relay listens that was told nothing else."""


def relay_config(given: Given, *, has_sockets: bool = False) -> Config:
    """Return the relay's configuration.

    Args:
        given: the settings.
        has_sockets: whether sockets were handed over, so that there is something to listen on where none is named.

    Raises:
        UsageError: a setting has no meaning, is out of bounds or contradicts another; one line says which and why.
    """
    settings = given.settings
    listeners = settings.unix or settings.tcp or settings.tls or has_sockets
    try:
        return Config(
            unix=tuple(dict.fromkeys(settings.unix)) if listeners else (DEFAULT_PATH,),
            tcp=tuple(given.parse("tcp", text, parse_listener) for text in settings.tcp),
            tls=tuple(given.parse("tls", text, parse_listener) for text in settings.tls),
            tls_files=_tls_files(given),
            allow=tuple(network for text in settings.allow for network in given.parse("allow", text, parse_networks)),
            socket_mode=given.parse("socket_mode", settings.socket_mode, parse_mode),
            socket_group=_socket_group(given),
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
            address_map={
                given.parse("address_map", address, ip_address): given.parse("address_map", id, parse_id, address)
                for address, id in settings.address_map.items()
            },
            principals=tuple(_principal(given, name, written) for name, written in settings.principals.items()),
        )
    except ConfigError as error:
        raise given.locate(error) from None


def _socket_group(given: Given) -> int | None:
    group = given.settings.socket_group
    return None if group is None else given.parse("socket_group", group, parse_group)


def _tls_files(given: Given) -> TlsFiles | None:
    certificate, key, client_ca = given.settings.tls_cert, given.settings.tls_key, given.settings.tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(f"tls_{'key' if certificate else 'cert'} is missing: TLS needs both tls_cert and tls_key")
    return TlsFiles(
        certificate=given.path("tls_cert", certificate),
        key=given.path("tls_key", key),
        client_ca=None if client_ca is None else given.path("tls_client_ca", client_ca),
    )


def _principal(given: Given, name: str, written: PrincipalSettings) -> Principal:
    def parse_ids(key: str, text: str) -> frozenset[int]:
        return given.parse("principals", text, parse_id_set, name, key)

    address = written.address
    return Principal(
        name=name,
        uid=written.uid,
        certificate=written.certificate,
        token_file=None if written.token_file is None else given.path("principals", written.token_file),
        address=None if address is None else given.parse("principals", address, parse_network, name, "address"),
        ids=parse_ids("ids", written.ids),
        to=parse_ids("to", written.to),
    )


LAST_GROUP = 2**32 - 2
"""The number above means to the kernel that a group is not to be changed."""


def parse_listener(text: str) -> tuple[str | None, int]:
    """Return host and port of `[HOST:]PORT`; no host is every interface."""
    address = parse_host_port(text)
    return address.host or None, address.port


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks that an `--allow` names."""
    match text:
        case "private":
            return PRIVATE_NETWORKS
        case "any":
            return ANY_NETWORK
    try:
        return (parse_network(text),)
    except ValueError as error:
        raise ValueError(f"{error}; private and any are allowed too") from None


def parse_network(text: str) -> Network:
    """Return the network in CIDR notation; an address alone is a network of one."""
    try:
        return ip_network(text)
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
