"""The settings of a relay: the one list of what can be set.

A field `queue_bytes` is the option `--queue-bytes`, the variable `TRIORELAY_QUEUE_BYTES` and the key `queue_bytes` of
the configuration file. A field without a description is a table, and a key of the file only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, get_args, get_origin

from ._logging import LogFormat, LogLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class PrincipalSettings:
    """One table `[principals.NAME]`."""

    uid: int | None = None
    certificate: str | None = None
    token_file: str | None = None
    address: str | None = None
    ids: str | None = None
    to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings as users write them; `_config` gives them their meaning.

    What describes an option stands behind its type: the placeholder of its value in a help text, and what it does.
    """

    unix: Annotated[
        tuple[str, ...], "PATH", "Listen on a Unix socket. Default: server_socket if no listener is given."
    ] = ()
    tcp: Annotated[tuple[str, ...], "[HOST:]PORT", "Listen on TCP; without a host on every interface."] = ()
    tls: Annotated[tuple[str, ...], "[HOST:]PORT", "Listen on TCP with TLS; needs certificate and key."] = ()
    tls_cert: Annotated[str | None, "FILE", "PEM file of the certificate and its chain."] = None
    tls_key: Annotated[str | None, "FILE", "PEM file of its private key."] = None
    tls_client_ca: Annotated[str | None, "FILE", "PEM file of the authority whose certificates clients must have."] = (
        None
    )
    allow: Annotated[
        tuple[str, ...],
        "CIDR|private|any",
        "Networks that may connect without a certificate or token. Default: private.",
    ] = ("private",)
    socket_mode: Annotated[str, "OCTAL", "Permission bits of Unix sockets."] = "0660"
    socket_group: Annotated[str | None, "NAME|GID", "Group of Unix sockets."] = None
    duplicate: Annotated[
        Literal["reject", "replace"],
        "",
        "What happens to a second claim of an id; replace: for the same principal.",
    ] = "reject"
    overflow: Annotated[Literal["wait", "drop"], "", "If a destination's queue is full: pause the sender, or drop."] = (
        "wait"
    )
    queue_bytes: Annotated[int, "N", "Bytes that may wait for one destination."] = 65536
    stall_timeout: Annotated[float, "SECONDS", "Close a destination that takes nothing for so long. 0: never."] = 10
    hello_timeout: Annotated[float, "SECONDS", "Close a session that has no id after so long. 0: never."] = 5
    drain_timeout: Annotated[float, "SECONDS", "How long a shutdown may take. 0: no limit."] = 5
    hold_frames: Annotated[int, "N", "Frames kept for an id that no client holds. 0: none."] = 0
    hold_time: Annotated[float, "SECONDS", "How long such a frame is kept."] = 10
    handover: Annotated[
        str | None,
        "PATH|none",
        "Where a successor may take over from this relay. Default: the first Unix path, and .handover.",
    ] = None
    take_over: Annotated[
        bool,
        "",
        "Take over from the relay there, with all its connections; start as usual if there is none.",
    ] = False
    share: Annotated[
        str | None,
        "IDS",
        "Ids that any number of clients may hold at once, as in N,0x80-0x8f: each gets a copy.",
    ] = None
    max_pending: Annotated[int, "N", "Sessions without an id, in all."] = 512
    max_pending_per_address: Annotated[int, "N", "Sessions without an id from one IPv4 address, IPv6 /64 or uid."] = 255
    max_clients_per_principal: Annotated[
        int,
        "N",
        "Clients with an id of one principal; without a policy, of one uid, certificate or address. 0: any.",
    ] = 0
    admin: Annotated[
        tuple[str, ...],
        "ADDRESS|none",
        "Where the admin endpoint listens: Unix path, HOST:PORT, or port of this host. The first Unix path with "
        ".admin after it is one too, unless one of them is none.",
    ] = ()
    admin_token_file: Annotated[
        str | None, "FILE", "The token of the admin endpoint; needed if other hosts can reach it."
    ] = None
    admin_host: Annotated[str | None, "NAME", "A name under which browsers may reach the admin endpoint."] = None
    flight_recorder: Annotated[
        int, "BYTES", "Keep the last frames in so much memory, for record --last and SIGUSR1. 0: off."
    ] = 0
    cluster: Annotated[
        tuple[str, ...], "URL", "Act as one relay with the others of the realm on this NATS server."
    ] = ()
    realm: Annotated[str, "NAME", "Which relays act as one."] = "default"
    cluster_credentials: Annotated[str | None, "FILE", "NATS credentials, or a line USER:PASSWORD or a token."] = None
    cluster_name: Annotated[
        str, "NAME", "The name of this relay in the realm; by default the host's name and four digits."
    ] = ""
    cluster_lease: Annotated[
        float,
        "SECONDS",
        "How long an id stays taken after its relay was last heard of; the same in all of the realm.",
    ] = 5.0
    cluster_required: Annotated[bool, "", "Fail at the start if the NATS server cannot be used."] = False
    cluster_fallback: Annotated[
        Literal["local", "refuse"], "", "Ids while the NATS server is away: granted here alone, or refused."
    ] = "local"
    log_format: Annotated[LogFormat, "", "Log lines for people or for machines."] = "text"
    log_level: Annotated[LogLevel, "", "The least important lines to write."] = "info"
    address_map: dict[str, str] = field(default_factory=dict)
    principals: dict[str, PrincipalSettings] = field(default_factory=dict)


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


def _options() -> Iterator[SettingField]:
    for setting in fields(Settings):
        if get_origin(setting.type) is Annotated:
            type_, metavar, help = get_args(setting.type)
            yield SettingField(setting.name, type_, metavar, help, setting.default)


OPTIONS = tuple(_options())
"""The settings that are options and variables too, in the order of `--help`."""
