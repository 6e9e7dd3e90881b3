"""Accounts of a NATS server that trusts an operator, and a credentials file of a user: what `nsc` makes for people."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import nkeys

if TYPE_CHECKING:
    from pathlib import Path

BASIC = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
# The server's own account must not have these.
JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


def new_key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def public(key: nkeys.KeyPair) -> str:
    name: bytes = key.public_key
    return name.decode()


def signed(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, **claims: Any) -> str:
    """Return a JWT in which the issuer tells what the subject is."""
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {"jti": os.urandom(8).hex(), "iat": 0, "iss": public(issuer), "sub": public(subject), "nats": claims}
    parts = [json.dumps(part).encode() for part in (head, body)]
    text = b".".join(map(_unpadded, parts))
    return (text + b"." + _unpadded(issuer.sign(text))).decode()


def _unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def make_accounts(directory: Path) -> tuple[Path, Path]:
    """Write a server's configuration and a user's credentials file, and return both."""
    operator, system, account = map(
        new_key, (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_ACCOUNT)
    )
    limits = {"wildcards": True, **BASIC}
    accounts = {
        public(system): signed(operator, system, type="account", version=2, limits=limits),
        public(account): signed(operator, account, type="account", version=2, limits=limits | JETSTREAM),
    }
    preloaded = "\n".join(f"  {name}: {told}" for name, told in accounts.items())
    configuration = directory / "accounts.conf"
    configuration.write_text(
        f"operator: {signed(operator, operator, type='operator', version=2)}\n"
        f"system_account: {public(system)}\nresolver: MEMORY\nresolver_preload: {{\n{preloaded}\n}}\n"
    )
    user = new_key(nkeys.PREFIX_BYTE_USER)
    token = signed(account, user, type="user", version=2, subs=-1, data=-1, payload=-1)
    credentials = directory / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return configuration, credentials
