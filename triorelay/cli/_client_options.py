"""Shared by the client commands: the options for relay and identity, and opening the client."""

import os
import shlex
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

from .._files import read_token
from ..client import Backoff, Client, ConnectionEvent, open_client
from ..client._bare import open_bare_nursery
from ..protocol import (
    Address,
    CloseReason,
    ConfigError,
    HelloRefused,
    Refusal,
    RelayError,
    TcpAddress,
    id_byte,
)
from ._options import ADDRESS, FILE, ID, Command, completing, gathered


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Which relay, and which identity: the values of `relay_options`.

    Attributes:
        if_taken: a hint for the error message, if another client holds the id.
    """

    relay: Address
    id: int | None
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    token_file: str | None
    if_taken: str = "; choose another with --id, or none for any free one"

    @asynccontextmanager
    async def open(
        self,
        *,
        observer: bool = False,
        strict: bool = False,
        reconnect: bool = False,
        shared: bool = False,
        lossy: bool = False,
    ) -> AsyncIterator[Client]:
        """Open the client, as `open_client` does; an observer takes the id that the user named, if any.

        With `reconnect` it reports on standard error when the connection is lost and made again. An error is a
        ConfigError that says what was tried, and what to do.
        """
        opening = open_client(
            self.relay,
            self.id,
            token=None if self.token_file is None else read_token(Path(self.token_file), "--token-file", shortest=1),
            ssl_context=self._context(),
            observer=observer and self.id is None,
            strict=strict,
            shared=shared,
            lossy=lossy,
            reconnect=Backoff() if reconnect else None,
        )
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(opening)
            except (OSError, HelloRefused) as error:
                reason = (isinstance(error, OSError) and error.strerror) or error
                raise ConfigError(f"{reason}{self._hint(error)}") from None
            if reconnect:
                await stack.enter_async_context(beside(_report_losses, client))
            yield client

    def _hint(self, error: OSError | HelloRefused) -> str:
        """Return a hint for a failed connection, for the end of the error message."""
        match error:
            case FileNotFoundError() | ConnectionRefusedError() if options := self._listening_there():
                return f"; start a relay there with: triorelay serve {options}"
            case PermissionError():
                return "; run as a member of the socket's group"
            case HelloRefused(code=Refusal.TAKEN):
                return self.if_taken
            case HelloRefused(code=Refusal.AUTHENTICATION) if self.token_file is None:
                return "; prove your identity with --token-file, or with --tls-cert"
        if isinstance(error.__cause__, ssl.SSLError) or isinstance(
            getattr(error.__cause__, "__cause__", None), ssl.SSLError
        ):
            return "; --tls-ca names the authority that signed it, and a relay's --tcp port speaks no TLS"
        return ""

    def _listening_there(self) -> str:
        """Return the options with which `triorelay serve` on this host listens at the address; empty if it cannot."""
        if isinstance(self.relay, TcpAddress):
            if not _is_this_host(self.relay.host):
                return ""
            if self.relay.tls:
                return f"--tls {self.relay.port} --tls-cert FILE --tls-key FILE"
            return f"--tcp {self.relay.port}"
        path = Path(self.relay.path)
        is_free = os.access(path.parent, os.W_OK | os.X_OK) and (path.is_socket() or not os.path.lexists(path))
        return f"--unix {shlex.quote(self.relay.path)}" if is_free or self.relay.is_abstract else ""

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
            files = ", ".join(filter(None, (self.tls_ca, self.tls_cert, self.tls_key)))
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
async def beside(task: Callable[[Client], Awaitable[None]], client: Client) -> AsyncIterator[None]:
    """Run a task beside the block, which ends it."""
    async with open_bare_nursery() as nursery:
        nursery.start_soon(task, client)
        yield
        nursery.cancel_scope.cancel()


async def _report_losses(client: Client) -> None:
    """Report on standard error when the connection is lost, and when it is made again."""
    # The command itself meets the error that ends this, and reports it.
    with suppress(RelayError, trio.ClosedResourceError):
        while True:
            with suppress(trio.BrokenResourceError):
                async for event in client.events():
                    if event.code == ConnectionEvent.LOST:
                        why = CloseReason(event.argument).label.replace("_", " ")
                        click.echo(f"triorelay: the connection to the relay ended: {why}; trying again", err=True)
                    elif event.code == ConnectionEvent.RESTORED:
                        click.echo("triorelay: connected again", err=True)


def relay_options(id_option: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator with the options of a client command, which gets them as one `RelayOptions`."""
    return gathered(
        "options",
        RelayOptions,
        ("relay", "id", "tls_ca", "tls_cert", "tls_key", "token_file"),
        click.option(
            "-r",
            "--relay",
            type=ADDRESS,
            default="unix:server_socket",
            show_default=True,
            envvar="TRIORELAY_RELAY",
            help="The relay: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, PATH or HOST:PORT.",
        ),
        id_option,
        click.option("--tls-ca", type=FILE, help="The authority of a tls: relay's certificate."),
        click.option("--tls-cert", type=FILE, help="This client's certificate."),
        click.option("--tls-key", type=FILE, help="The key of this client's certificate."),
        click.option("--token-file", type=FILE, help="The file that holds this client's token."),
    )


client_options = relay_options(
    click.option("-i", "--id", type=ID, help="The id to hold. Default: any free one (who, ping: none).")
)
"""The options of all other client commands."""


async def _connected_ids(parameters: dict[str, Any]) -> list[int]:
    async with open_client(parameters["relay"], observer=True) as client:
        return [id_byte(name) for name in client.peers]


complete_peer = completing("relay", _connected_ids)
"""Completes the ids of the connected clients."""
