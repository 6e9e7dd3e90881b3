"""Shared by the client commands: the options for relay and identity, opening the client, completion of an id."""

import os
import shlex
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.shell_completion import CompletionItem

from .._files import read_token
from ..protocol import (
    Address,
    ConfigError,
    HelloRefused,
    Refusal,
    RelayError,
    TcpAddress,
    UnixAddress,
    id_byte,
    id_name,
    parse_address,
)
from ._options import ADDRESS, ID, Command, run

if TYPE_CHECKING:
    from ..client import Client

DEFAULT = "unix:server_socket"
COMPLETION_PATIENCE = 0.5
"""Seconds after which completion gives up on a relay that does not answer: a user has pressed a key and waits."""


class Kinds(TypedDict):
    """The kind of client: see `RelayOptions.open`."""

    observer: bool
    strict: bool
    shared: bool
    lossy: bool


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Which relay, and which identity.

    Attributes:
        relay: where it is.
        id: the id to hold; None for any free one.
        tls_ca: a PEM file of the authorities that its certificate may come from; None for the system's.
        tls_cert: a PEM file of this client's own certificate.
        tls_key: a PEM file of its key; None if the certificate's file has it.
        token_file: a file that holds this client's token.
        if_taken: a hint for the error message, if another client holds the id.
    """

    relay: Address
    id: int | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    token_file: Path | None
    if_taken: str = "; choose another with --id, or none for any free one"

    def open(
        self,
        *,
        observer: bool = False,
        strict: bool = False,
        reconnect: bool = False,
        shared: bool = False,
        lossy: bool = False,
    ) -> "AbstractAsyncContextManager[Client]":
        """Open the client. An error is one line: what was tried, and for a missing relay what to do.

        Args:
            observer: take no id, unless the user named one.
            strict: raise if frames did not arrive.
            reconnect: reconnect after a loss, and report it on standard error.
            shared: hold the id together with other clients.
            lossy: drop new frames while the queue is full, instead of pausing the senders.

        Raises:
            ConfigError: a file cannot be used, or there is no relay.
        """
        kinds = Kinds(observer=observer and self.id is None, strict=strict, shared=shared, lossy=lossy)
        return self._open(kinds, reconnect)

    @asynccontextmanager
    async def _open(self, kinds: Kinds, reconnect: bool) -> AsyncIterator["Client"]:
        from ..client import Backoff, open_client

        opening = open_client(
            self.relay,
            self.id,
            token=self._token(),
            ssl_context=self._context(),
            **kinds,
            reconnect=Backoff() if reconnect else None,
        )
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(opening)
            except OSError as error:
                raise ConfigError(f"{error.strerror or error}{self._hint(error)}") from None
            except HelloRefused as refusal:
                raise ConfigError(f"{refusal}{self._hint_refusal(refusal.code)}") from None
            if reconnect:
                await stack.enter_async_context(_reporting_losses(client))
            yield client

    def _hint(self, error: OSError) -> str:
        """Return a hint for a failed connection, for the end of the error message."""
        match error:
            case FileNotFoundError() | ConnectionRefusedError() if self._could_listen_there():
                return f"; start a relay there with: triorelay serve {self._listening_there()}"
            case PermissionError():
                return "; run as a member of the socket's group"
        if isinstance(error.__cause__, ssl.SSLError) or isinstance(
            getattr(error.__cause__, "__cause__", None), ssl.SSLError
        ):
            return "; --tls-ca names the authority that signed it, and a relay's --tcp port speaks no TLS"
        return ""

    def _could_listen_there(self) -> bool:
        """Return whether `triorelay serve` on this host could listen at the relay's address."""
        if isinstance(self.relay, TcpAddress):
            return self.relay.port > 0 and _is_this_host(self.relay.host)
        path = Path(self.relay.path)
        if self.relay.is_abstract:
            return True
        return os.access(path.parent, os.W_OK | os.X_OK) and (path.is_socket() or not os.path.lexists(path))

    def _listening_there(self) -> str:
        if isinstance(self.relay, UnixAddress):
            return f"--unix {shlex.quote(self.relay.path)}"
        if self.relay.tls:
            return f"--tls {self.relay.port} --tls-cert FILE --tls-key FILE"
        return f"--tcp {self.relay.port}"

    def _hint_refusal(self, code: int) -> str:
        match code:
            case Refusal.TAKEN:
                return self.if_taken
            case Refusal.AUTHENTICATION if self.token_file is None:
                return "; prove your identity with --token-file, or with --tls-cert"
        return ""

    def _token(self) -> bytes | None:
        return None if self.token_file is None else read_token(self.token_file, "--token-file", shortest=1)

    def _context(self) -> ssl.SSLContext | None:
        if not (isinstance(self.relay, TcpAddress) and self.relay.tls):
            if self.tls_ca or self.tls_cert or self.tls_key:
                raise ConfigError(f"--tls-ca, --tls-cert and --tls-key go with a tls: address, not with {self.relay}")
            return None
        if self.tls_key is not None and self.tls_cert is None:
            raise ConfigError(f"--tls-key {self.tls_key} goes with the certificate that --tls-cert names")
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:
            files = ", ".join(str(file) for file in (self.tls_ca, self.tls_cert, self.tls_key) if file)
            raise ConfigError(f"{files}: {error.strerror or error}") from None
        return context


def _is_this_host(host: str) -> bool:
    """Return whether `host` is an address of this host: one that a socket can be bound to."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as sock:
                sock.bind(address)
    except OSError:
        return False
    return True


@asynccontextmanager
async def _reporting_losses(client: "Client") -> AsyncIterator[None]:
    """Report on standard error when the connection is lost, and when it is made again."""
    import trio

    from ..client import ConnectionEvent
    from ..client._bare import open_bare_nursery
    from ..protocol import CloseReason

    async def report() -> None:
        while True:
            with suppress(trio.BrokenResourceError):
                async for event in client.events():
                    if event.code == ConnectionEvent.LOST:
                        why = CloseReason(event.argument).label.replace("_", " ")
                        click.echo(f"triorelay: the connection to the relay ended: {why}; trying again", err=True)
                    elif event.code == ConnectionEvent.RESTORED:
                        click.echo("triorelay: connected again", err=True)

    async def report_until_it_ends() -> None:
        # The command itself meets the same error, and reports it.
        with suppress(RelayError, trio.ClosedResourceError):
            await report()

    async with open_bare_nursery() as nursery:
        nursery.start_soon(report_until_it_ends)
        yield
        nursery.cancel_scope.cancel()


def client_options(command: Command) -> Command:
    """Add the options of all client commands; the command gets them as one `RelayOptions`, its first argument."""
    return relay_options(
        command,
        click.option(
            "-i", "--id", type=ID, metavar="ID", help="The id to hold. Default: any free one (who, ping: none)."
        ),
    )


def relay_options(command: Command, id_option: Callable[[Command], Command]) -> Command:
    """Add the options of a client command whose id is given by `id_option`, which fills in the parameter `id`."""

    @wraps(command)
    def with_relay(
        relay: Address,
        id: int | None,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        token_file: Path | None,
        **rest: object,
    ) -> object:
        return command(RelayOptions(relay, id, tls_ca, tls_cert, tls_key, token_file), **rest)

    file = click.Path(path_type=Path, dir_okay=False)
    decorated: Any = with_relay
    for option in (
        click.option("--token-file", type=file, metavar="FILE", help="The file that holds this client's token."),
        click.option("--tls-key", type=file, metavar="FILE", help="The key of this client's certificate."),
        click.option("--tls-cert", type=file, metavar="FILE", help="This client's certificate."),
        click.option("--tls-ca", type=file, metavar="FILE", help="The authority of a tls: relay's certificate."),
        id_option,
        click.option(
            "-r",
            "--relay",
            type=ADDRESS,
            metavar="ADDRESS",
            default=DEFAULT,
            show_default=True,
            envvar="TRIORELAY_RELAY",
            help="The relay: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, PATH or HOST:PORT.",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def complete_peer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the connected clients; none if the relay does not answer."""
    del param
    try:
        address: Address = ctx.params.get("relay") or parse_address(os.environ.get("TRIORELAY_RELAY") or DEFAULT)
        names = _connected_names(address)
    except (ValueError, OSError, RelayError):
        return []
    return offered(names, incomplete)


def offered(names: list[str], incomplete: str) -> list[CompletionItem]:
    """Return those of `names` that begin with what was typed. What a shell would interpret (`*`, `$`) is left out."""
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and shlex.quote(name) == name]


def _connected_names(address: Address) -> list[str]:
    import trio

    from ..client import open_client

    async def ask() -> list[str]:
        with trio.move_on_after(COMPLETION_PATIENCE):
            async with open_client(address, observer=True) as client:
                return [id_name(id_byte(name)) for name in sorted(client.peers)]
        return []

    return run(ask)
