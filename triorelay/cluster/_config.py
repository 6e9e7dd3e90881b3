"""The settings of a relay that acts as one with others."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from .._fields import check_fields
from ..relay import ConfigError

_REALM = re.compile("[A-Za-z0-9_-]{1,64}")
_NAME = re.compile("[^\\x00-\\x1f\\x7f-\\x9f]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """The settings of one relay's part in a realm.

    Attributes:
        urls: servers of the engine, `nats://HOST:PORT` or `tls://HOST:PORT`; one of them is enough.
        realm: the common name of the relays that act as one: letters, digits, `_` and `-`.
        name: names this relay to people in the realm; the host's name and four digits where it is empty.
        credentials: the engine's credentials file.
        required: whether `serve` fails if the engine cannot be used at the start.
        fallback: whether this relay, while the engine is away, grants claims on its own or refuses them.
        lease: seconds that an id stays taken after the last renewal by its relay; the same for all relays of a realm.
        window: bytes of frames that may be under way from this relay to one id elsewhere.

    Raises:
        ConfigError: a setting has no meaning.
    """

    urls: tuple[str, ...]
    realm: str = "default"
    name: str = ""
    credentials: Path | None = None
    required: bool = False
    fallback: Literal["local", "refuse"] = "local"
    lease: float = 5.0
    window: int = 1 << 20

    def __post_init__(self) -> None:
        check_fields(self, ConfigError, "cluster.")
        if not self.urls:
            raise ConfigError("cluster needs the address of an engine, such as nats://host:4222")
        for url in self.urls:
            if not _is_address(url):
                raise ConfigError(f"cluster {url}: an engine's address is nats://HOST:PORT or tls://HOST:PORT")
        if not _REALM.fullmatch(self.realm):
            raise ConfigError(f"realm {self.realm!r}: a realm is named by 1 to 64 letters, digits, _ and -")
        if self.name and not _NAME.fullmatch(self.name):
            raise ConfigError(f"cluster_name {self.name!r}: a name has 1 to 64 printable characters")
        if not 0.5 <= self.lease <= 60:
            raise ConfigError(f"cluster_lease must be from 0.5 to 60, not {self.lease:.15g}")
        if not 4096 <= self.window <= 1 << 26:
            raise ConfigError(f"window must be from 4096 to {1 << 26}, not {self.window}")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # what resolving it does
        return parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the name cannot be one
        return False
