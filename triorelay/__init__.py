# triorelay: a relay for processes with one-byte names, and a client library for it.
#   protocol/   the bytes on the wire, without input or output
#   relay/      the server
#   client/     the Trio client
#   blocking    the client for programs without Trio
#   recording/  what went through, in files
#   admin/      status, metrics and the dashboard over HTTP
#   cluster/    several relays that act as one
#   handover/   from a running relay to its successor
#   cli/        the commands (__main__: the same for `python -m`)
#   testing/    an in-process relay for your own tests
#   _build      which build runs;  _mypyc  hints for the compiler;  _version  the version
#   _files      reading small files;  _liveness  detecting TCP peers that vanished;  _fields  the types of settings
# What is public here is loaded when it is first used, so that `triorelay --help` need not wait for Trio.

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .client import Backoff as Backoff
    from .client import CallFailed as CallFailed
    from .client import Calls as Calls
    from .client import Client as Client
    from .client import ConnectionEvent as ConnectionEvent
    from .client import Events as Events
    from .client import MessageChannel as MessageChannel
    from .client import NotDelivered as NotDelivered
    from .client import PeerChannel as PeerChannel
    from .client import PeerLeft as PeerLeft
    from .client import PeerStream as PeerStream
    from .client import open_client as open_client
    from .protocol import CloseReason as CloseReason
    from .protocol import ConfigError as ConfigError
    from .protocol import ConnectionLost as ConnectionLost
    from .protocol import Event as Event
    from .protocol import EventCode as EventCode
    from .protocol import FailReason as FailReason
    from .protocol import HelloRefused as HelloRefused
    from .protocol import LocalProtocolError as LocalProtocolError
    from .protocol import ProtocolError as ProtocolError
    from .protocol import Refusal as Refusal
    from .protocol import RelayError as RelayError
    from .protocol import RemoteProtocolError as RemoteProtocolError
    from .relay import Config as Config
    from .relay import Principal as Principal
    from .relay import Relay as Relay
    from .relay import Service as Service
    from .relay import TlsFiles as TlsFiles
    from .relay import serve as serve

_HOMES = {
    ".client": (
        "Backoff",
        "CallFailed",
        "Calls",
        "Client",
        "ConnectionEvent",
        "Events",
        "MessageChannel",
        "NotDelivered",
        "PeerChannel",
        "PeerLeft",
        "PeerStream",
        "open_client",
    ),
    ".protocol": (
        "CloseReason",
        "ConfigError",
        "ConnectionLost",
        "Event",
        "EventCode",
        "FailReason",
        "HelloRefused",
        "LocalProtocolError",
        "ProtocolError",
        "Refusal",
        "RelayError",
        "RemoteProtocolError",
    ),
    ".relay": ("Config", "Principal", "Relay", "Service", "TlsFiles", "serve"),
}
__all__ = ["__version__", *(name for names in _HOMES.values() for name in names)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
