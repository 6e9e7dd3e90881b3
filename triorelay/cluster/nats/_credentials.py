"""How a relay proves its identity to a NATS server: user and password, a token, or a JWT with an nkey's signature."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._engine import EngineAway

HINT = "look into --cluster-credentials"
_JWT = re.compile(rb"-----BEGIN NATS USER JWT-----\s+([\w.-]+)")
_SEED = re.compile(rb"-----BEGIN USER NKEY SEED-----\s+(\w+)")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The contents of a credentials file.

    Attributes:
        fields: fields for CONNECT.
        seed: signs the server's nonce; empty for no signature.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    seed: bytes = b""

    def answer(self, nonce: str) -> dict[str, str]:
        """Return the fields for CONNECT, for the server's `nonce`."""
        if not self.seed:
            return dict(self.fields)
        signature = base64.urlsafe_b64encode(_signer(self.seed).sign(nonce.encode())).rstrip(b"=")
        return {**self.fields, "sig": signature.decode()}


def read_credentials(path: Path | None) -> Credentials:
    """Read a file of NATS's own kind, or one with `USER:PASSWORD` or a token; None for no credentials.

    Raises:
        EngineAway: it cannot be read, or cannot be right.
    """
    if path is None:
        return Credentials()
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise EngineAway(f"cannot read {path}: {error.strerror}", HINT) from None
    if b"-----BEGIN" not in content:
        user, colon, password = content.decode("utf-8", "replace").partition(":")
        return Credentials({"user": user, "pass": password} if colon else {"auth_token": user})
    jwt, seed = _JWT.search(content), _SEED.search(content)
    if jwt is None:
        raise EngineAway(f"{path} has no JWT of a user", HINT)
    try:
        _signer(seed[1] if seed else b"")
    except ImportError as error:
        raise EngineAway(
            f"{path} takes {error.name}, which is not installed", "pip install 'triorelay[cluster]'"
        ) from None
    except Exception:  # nkeys lets many exceptions through
        raise EngineAway(f"{path} has a JWT, but no seed that goes with one", HINT) from None
    return Credentials({"jwt": jwt[1].decode()}, seed[1] if seed else b"")


def _signer(seed: bytes) -> Any:
    # It loads cryptography by itself, which only files of NATS's own kind need.
    import nkeys

    return nkeys.from_seed(seed)
