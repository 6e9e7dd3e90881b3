"""The settings of a relay: the one list of what can be set.

A field `queue_bytes` is the option `--queue-bytes`, the variable `TRIORELAY_QUEUE_BYTES` and the key `queue_bytes` of
the configuration file. A field without a description is a table, and a key of the file only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from ._logging import LogFormat, LogLevel


def option(metavar: str, help: str) -> msgspec.Meta:
    """Describe a setting for the command line."""
    return msgspec.Meta(description=help, extra={"metavar": metavar})


class PrincipalSettings(msgspec.Struct, kw_only=True, frozen=True):
    """One table `[principals.NAME]`."""

    uid: int | None = None
    certificate: str | None = None
    token_file: str | None = None
    address: str | None = None
    ids: str | None = None
    to: str | None = None


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """The settings as users write them; `_config` gives them their meaning."""

    unix: Annotated[
        tuple[str, ...], option("PATH", "Listen on a Unix socket. Default: server_socket if no listener is given.")
    ] = ()
    tcp: Annotated[tuple[str, ...], option("[HOST:]PORT", "Listen on TCP; without a host on every interface.")] = ()
    tls: Annotated[tuple[str, ...], option("[HOST:]PORT", "Listen on TCP with TLS; needs certificate and key.")] = ()
    tls_cert: Annotated[str | None, option("FILE", "PEM file of the certificate and its chain.")] = None
    tls_key: Annotated[str | None, option("FILE", "PEM file of its private key.")] = None
    tls_client_ca: Annotated[
        str | None, option("FILE", "PEM file of the authority whose certificates clients must have.")
    ] = None
    allow: Annotated[
        tuple[str, ...],
        option("CIDR|private|any", "Networks that may connect without a certificate or token. Default: private."),
    ] = ("private",)
    socket_mode: Annotated[str, option("OCTAL", "Permission bits of Unix sockets.")] = "0660"
    socket_group: Annotated[str | None, option("NAME|GID", "Group of Unix sockets.")] = None
    duplicate: Annotated[
        Literal["reject", "replace"],
        option("", "What happens to a second claim of an id; replace: for the same principal."),
    ] = "reject"
    overflow: Annotated[
        Literal["wait", "drop"], option("", "If a destination's queue is full: pause the sender, or drop.")
    ] = "wait"
    queue_bytes: Annotated[int, option("N", "Bytes that may wait for one destination.")] = 65536
    stall_timeout: Annotated[
        float, option("SECONDS", "Close a destination that takes nothing for so long. 0: never.")
    ] = 10
    hello_timeout: Annotated[float, option("SECONDS", "Close a session that has no id after so long. 0: never.")] = 5
    drain_timeout: Annotated[float, option("SECONDS", "How long a shutdown may take. 0: no limit.")] = 5
    hold_frames: Annotated[int, option("N", "Frames kept for an id that no client holds. 0: none.")] = 0
    hold_time: Annotated[float, option("SECONDS", "How long such a frame is kept.")] = 10
    handover: Annotated[
        str | None,
        option(
            "PATH|none",
            "Where a successor may take over from this relay. Default: the first Unix path, and .handover.",
        ),
    ] = None
    take_over: Annotated[
        bool,
        option("", "Take over from the relay there, with all its connections; start as usual if there is none."),
    ] = False
    share: Annotated[
        str | None,
        option("IDS", "Ids that any number of clients may hold at once, as in N,0x80-0x8f: each gets a copy."),
    ] = None
    max_pending: Annotated[int, option("N", "Sessions without an id, in all.")] = 512
    max_pending_per_address: Annotated[
        int, option("N", "Sessions without an id from one IPv4 address, IPv6 /64 or uid.")
    ] = 255
    max_clients_per_principal: Annotated[
        int,
        option(
            "N", "Clients with an id of one principal; without a policy, of one uid, certificate or address. 0: any."
        ),
    ] = 0
    admin: Annotated[
        tuple[str, ...],
        option(
            "ADDRESS|none",
            "Where the admin endpoint listens: Unix path, HOST:PORT, or port of this host. The first Unix path with "
            ".admin after it is one too, unless one of them is none.",
        ),
    ] = ()
    admin_token_file: Annotated[
        str | None, option("FILE", "The token of the admin endpoint; needed if other hosts can reach it.")
    ] = None
    admin_host: Annotated[str | None, option("NAME", "A name under which browsers may reach the admin endpoint.")] = (
        None
    )
    flight_recorder: Annotated[
        int, option("BYTES", "Keep the last frames in so much memory, for record --last and SIGUSR1. 0: off.")
    ] = 0
    cluster: Annotated[
        tuple[str, ...], option("URL", "Act as one relay with the others of the realm on this NATS server.")
    ] = ()
    realm: Annotated[str, option("NAME", "Which relays act as one.")] = "default"
    cluster_credentials: Annotated[
        str | None, option("FILE", "NATS credentials, or a line USER:PASSWORD or a token.")
    ] = None
    cluster_name: Annotated[
        str, option("NAME", "The name of this relay in the realm; by default the host's name and four digits.")
    ] = ""
    cluster_lease: Annotated[
        float,
        option(
            "SECONDS", "How long an id stays taken after its relay was last heard of; the same in all of the realm."
        ),
    ] = 5.0
    cluster_required: Annotated[bool, option("", "Fail at the start if the NATS server cannot be used.")] = False
    cluster_fallback: Annotated[
        Literal["local", "refuse"], option("", "Ids while the NATS server is away: granted here alone, or refused.")
    ] = "local"
    log_format: Annotated[LogFormat, option("", "Log lines for people or for machines.")] = "text"
    log_level: Annotated[LogLevel, option("", "The least important lines to write.")] = "info"
    address_map: dict[str, str] = {}
    principals: dict[str, PrincipalSettings] = {}


@dataclass(frozen=True, slots=True)
class SettingField:
    """A field of `Settings`, as the command line sees it.

    Attributes:
        type: the type of its value, without what describes it.
        metavar: the placeholder of the value in a help text; empty if the choices are listed.
    """

    key: str
    type: Any
    metavar: str
    help: str
    default: object

    @property
    def flag(self) -> str:
        return f"--{self.key.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"TRIORELAY_{self.key.upper()}"

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def repeatable(self) -> bool:
        return get_origin(self.type) is tuple


def _fields() -> Iterator[SettingField]:
    for field in msgspec.structs.fields(Settings):
        if get_origin(field.type) is Annotated:
            type_, meta = get_args(field.type)
            yield SettingField(field.name, type_, meta.extra["metavar"], meta.description, field.default)


OPTIONS = tuple(_fields())
"""The settings that are options and variables too, in the order of `--help`."""
