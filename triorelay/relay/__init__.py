# The relay itself: `serve` and what it is made of. Read in this order:
#   _server       the task tree and the drain
#   _listeners    accepting
#   _admission    from a connection to a session with an id
#   _claims       what a claim of an id takes
#   _session      one client's life
#   _pump         one task that reads for all
#   _router       from a chunk to the outboxes (the hot path, with _outbox)
#   _outbox       what waits for one destination
#   _relay        the state that all of these share
#   _writer       what a destination did not take at once; the stall rule (_waiting: who waits for it)
#   _connection   a plain socket, as a session sees it; _tls and _memory are the others
#   _ledger, _registry, _hold, _requests, _snapshot, _socket_file, _config, _log, _interfaces
#   _policy, _pending, _buckets, _reload: who may do what, and how much of it

# What the services beside a relay (admin, cluster) need of the layer below is re-exported here: they import no other.

from ..protocol import CloseReason as CloseReason
from ..protocol import ConfigError as ConfigError
from ..protocol import DropReason as DropReason
from ..protocol import EventCode as EventCode
from ..protocol import Refusal as Refusal
from ..protocol import TcpAddress as TcpAddress
from ..protocol import UnixAddress as UnixAddress
from ..protocol import id_name as id_name
from ..protocol import parse_id as parse_id
from ..protocol import source_counts as source_counts
from ._config import ANY_NETWORK as ANY_NETWORK
from ._config import PRIVATE_NETWORKS as PRIVATE_NETWORKS
from ._config import Config as Config
from ._config import Network as Network
from ._config import Principal as Principal
from ._config import TlsFiles as TlsFiles
from ._connection import Peer as Peer
from ._interfaces import Remote as Remote
from ._interfaces import Service as Service
from ._listeners import listen_tcp as listen_tcp
from ._log import LOGGER as LOGGER
from ._log import Throttle as Throttle
from ._log import log as log
from ._outbox import Outbox as Outbox
from ._policy import Grant as Grant
from ._policy import Policy as Policy
from ._policy import Refused as Refused
from ._relay import Relay as Relay
from ._server import serve as serve
from ._session import Session as Session
from ._socket_file import listen_unix as listen_unix
from ._tls import server_context as server_context
