"""How nats-py is told to connect, and what its complaints mean."""

import asyncio
import os
import re
import ssl
from pathlib import Path
from typing import Any

import nats.errors
import nkeys
from nats.aio.client import Client

from ._engine import EngineAway

ERRORS = (nats.errors.Error, OSError, asyncio.TimeoutError)
"""What nats-py raises because of the server or the network."""
JWT = b"-----BEGIN NATS USER JWT-----"
SEED = re.compile(rb"-----BEGIN USER NKEY SEED-----\n(\w+)")
_MEND = "look into --cluster-credentials"


def reason_of(error: BaseException) -> str:
    """Return what is wrong, for people."""
    if "authorization violation" in str(error).lower() or "authentication" in str(error).lower():
        return "it refuses our credentials"
    if isinstance(error, asyncio.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, nats.errors.SecureConnWantedError):
        return "it offers no TLS, and its address begins with tls://"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error).removeprefix("nats: ").strip("'") or type(error).__name__


class TlsClient(Client):
    """A client that says nothing, least of all its credentials, in the clear to a server that was to have TLS.

    nats-py takes TLS where the server asks for it, whatever the address says.
    """

    def _connect_command(self) -> bytes:
        wanted = any(server.scheme == "tls" for server in self.servers)
        if wanted and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        command: bytes = super()._connect_command()
        return command


def credentials(path: Path | None) -> dict[str, Any]:
    """Return the options of nats-py for a credentials file: NATS's own kind, or a line `USER:PASSWORD` or a token.

    Raises:
        EngineAway: the file cannot be read, or cannot be right.
    """
    if path is None:
        return {}
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise EngineAway(f"cannot read {path}: {error.strerror}", _MEND) from None
    if JWT in content:
        _check_seed(path, SEED.search(content))
        return {"user_credentials": str(path)}
    user, colon, password = content.decode("utf-8", "replace").partition(":")
    return {"user": user, "password": password} if colon else {"token": user}


def _check_seed(path: Path, seed: re.Match[bytes] | None) -> None:
    """Raise EngineAway where the file has no seed to sign with; nats-py finds out in the midst of connecting."""
    try:
        nkeys.from_seed(seed[1] if seed else b"")
    except (nkeys.NkeysError, ValueError):
        raise EngineAway(f"{path} has a JWT, but no seed that goes with one", _MEND) from None
