"""Refuses settings that cannot take effect, and files that lack a setting which keeps clients out. It names the key.

1. A setting that another one makes meaningless is a mistake of the user, and often a dangerous one: the relay would run
   without the protection that the setting should give.
2. A file that is read again may be cut off, by an editor or a full disk. A running relay does not admit more clients
   because a key is missing: to admit them, the user writes the default. (`relay/_reload` refuses what no key can
   express.)
"""

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..protocol import ALL_IDS, Address, ConfigError, TcpAddress, UnixAddress
from ..relay import OVERFLOW_UID, Config, Network, Principal, check_socket_path
from ._config import admin_addresses, relay_config
from ._options import parse_unix
from ._settings import Settings
from ._sources import Loaded


def effective_config(loaded: Loaded, sockets: Sequence[socket.socket] | None = ()) -> Config:
    """Return the relay's configuration; refuse the first setting that cannot take effect, and say what it needs.

    Without knowledge of the `sockets` that were handed over (None), what depends on them passes.
    """
    config = relay_config(loaded, has_sockets=bool(sockets))
    for key, is_met, needs in _needs(loaded, config, sockets):
        if key in loaded.said and not is_met:
            raise loaded.locate(ConfigError(f"{key} has no meaning without {needs}"))
    for complaint in (*_place_complaints(loaded, config), *_policy_complaints(config, sockets)):
        raise loaded.locate(ConfigError(complaint))
    return config


def _needs(loaded: Loaded, config: Config, sockets: Sequence[socket.socket] | None) -> Iterator[tuple[str, bool, str]]:
    """Yield each setting that needs another one, whether that is given, and what to write."""
    settings = loaded.settings
    has_file = any(not UnixAddress(path).is_abstract for path in config.unix)
    has_tcp = bool(config.tcp or config.tls) or _has(sockets, socket.AF_INET, socket.AF_INET6)
    yield "socket_mode", has_file, "a Unix socket that is a file (--unix PATH)"
    yield "socket_group", has_file, "a Unix socket that is a file (--unix PATH)"
    for key in ("tls_cert", "tls_key", "tls_client_ca"):
        yield key, bool(config.tls), "a TLS listener (--tls [HOST:]PORT)"
    yield "allow", has_tcp, "a TCP or TLS listener (--tcp, --tls)"
    yield "address_map", bool(config.tcp) or _has(sockets, socket.AF_INET, socket.AF_INET6), "a TCP listener (--tcp)"
    yield "hold_time", config.hold_frames > 0, "--hold-frames"
    has_path = settings.handover is not None or bool(config.unix) or _has(sockets, socket.AF_UNIX)
    asks = not settings.take_over or (has_path and settings.handover != "none")
    yield "take_over", asks, "a place to ask at (--unix PATH, --handover PATH)"
    named = admin_addresses(loaded)
    yield "admin_token_file", bool(named) or "none" not in settings.admin, "an admin endpoint, and --admin is none"
    yield "admin_host", any(isinstance(one, TcpAddress) for one in named), "an admin endpoint on TCP (--admin PORT)"
    for key in ("realm", *(key for key in Settings.__dataclass_fields__ if key.startswith("cluster_"))):
        yield key, bool(settings.cluster), "--cluster"


def _has(sockets: Sequence[socket.socket] | None, *families: int) -> bool:
    return sockets is None or any(sock.family in families for sock in sockets)


def _place_complaints(loaded: Loaded, config: Config) -> Iterator[str]:
    """Yield what is wrong with the places to listen at: a path that no socket can have, a place that is named twice."""
    places: list[tuple[str, Address]] = [("unix", UnixAddress(path)) for path in config.unix]
    for key, listeners in (("tcp", config.tcp), ("tls", config.tls)):
        places += [(key, TcpAddress(host or "*", port)) for host, port in listeners if port]
    places += [
        ("admin", one) for one in dict.fromkeys(admin_addresses(loaded)) if isinstance(one, UnixAddress) or one.port
    ]
    if loaded.settings.handover not in (None, "none"):
        places.append(("handover", UnixAddress(parse_unix(loaded.settings.handover))))
    taken: dict[str, str] = {}
    for key, address in places:
        place = str(address)
        if isinstance(address, UnixAddress):
            try:
                check_socket_path(address.path)
            except ConfigError as error:  # the system would say no
                raise ConfigError(loaded.locate(ConfigError(f"{key} {error}")).format_message()) from None
            place = address.path if address.is_abstract else os.path.normpath(address.path)
        if place in taken:
            yield f"{key} {address} is named twice, by {taken[place]} before; give another path or port"
        taken[place] = key


def _policy_complaints(config: Config, sockets: Sequence[socket.socket] | None) -> Iterator[str]:
    """Yield each client that the policy names and that can never come."""
    for address in config.address_map:
        if not any(address in network for network in config.allow):
            yield f"address_map.{address} never applies: add {address} to allow"
    for place, one in enumerate(config.principals):
        name = f"principals.{one.name}"
        if one.uid == OVERFLOW_UID:
            yield f"{name} never applies: {OVERFLOW_UID} is what the kernel shows for users that it cannot name"
        if one.uid is not None and not config.unix and not _has(sockets, socket.AF_UNIX):
            yield f"{name} never applies: a uid is known by a Unix socket only, and there is none"
        if one.certificate is not None and (config.tls_files is None or config.tls_files.client_ca is None):
            yield f"{name} never applies: without tls_client_ca no client is asked for a certificate"
        if one.address is not None and not any(
            one.address.version == network.version and one.address.overlaps(network) for network in config.allow
        ):
            yield f"{name} never applies: add {one.address} to allow"
        for other in config.principals[:place]:
            if _proof_of(other) == _proof_of(one):
                yield f"{name} never applies: {other.name} has the same proof and is named first"


def _proof_of(principal: Principal) -> Principal:
    return replace(principal, name="", ids=ALL_IDS, to=ALL_IDS)


def refuse_lost(first: Loaded, loaded: Loaded, old: Config, new: Config) -> None:
    """Refuse a configuration, read again, that lacks a key which kept clients out, or the end of its last line.

    `first` are the settings at the start, `old` is what the relay runs with, and `new` is what `loaded` means.
    """
    if first.ends_whole and not loaded.ends_whole:
        raise ConfigError(f"{loaded.file}: its last line has no newline, so it may be cut off; add one")
    if "allow" not in loaded.said and not all(_lies_in(network, old.allow) for network in new.allow):
        raise ConfigError('allow: it is missing, and its default lets in more; write allow = "private" if you mean it')
    if first.settings.admin_token_file is not None and "admin_token_file" not in loaded.said:
        raise ConfigError("admin_token_file: it is missing; restart the relay if you mean it")
    for one in old.principals:
        written = loaded.settings.principals.get(one.name)
        for key, ids in (("ids", one.ids), ("to", one.to)):
            if written is not None and getattr(written, key) is None and ids != ALL_IDS:
                place = f"principals.{one.name}.{key}"
                raise ConfigError(f'{place}: it is missing, and its default is all; write {key} = "*" if you mean it')


def _lies_in(network: Network, allowed: Iterable[Network]) -> bool:
    return any(network.version == other.version and network.subnet_of(other) for other in allowed)  # type: ignore[arg-type]
