# The relay itself: `serve` and what it is made of, from the bottom up: no file knows one below it in this list.
#   _config        settings
#   _buckets       allowances for many keys;  _log  log records, throttled
#   _connection    a plain socket, as a session sees it;  _tls  the same with TLS
#   _policy        which ids a client may hold and send to;  _pending  connections without an id, how many there may be
#   _state         what a relay is, apart from its tasks, as plain data
#   _ledger        where each frame went
#   _round         a step between two checkpoints, and the flushes at its end
#   _outbox        what waits for one destination (the hot path, with _router and _pump);  _hold  for absent ids
#   _marks         waiting until certain frames are written or dropped
#   _session       the state of one client
#   _registry      which session holds which id
#   _exchange      all that routing changes: registry, queues, held frames, ledger
#   _router        from what a client sent to the outboxes
#   _pump          one task that reads for all
#   _writer        what a destination did not take at once; the stall rule
#   _snapshot      the status;  _reload  another policy for running sessions
#   _socket_file   the path of a Unix listener;  _reachable  whether it still leads there
#   _listening     sockets that this process listens on, its own and inherited ones
#   _relay         settings, limits, drain, control: what `serve` hands out
#   _succession    from a running relay to plain data and back
#   _client_task   one client's task, from its id to its end;  _client_file  the file of a client that bound a path
#   _claims        from a hello to a session with an id
#   _admission     from a connection to a claim, or to the last words to a client that is refused
#   _listeners     listening and accepting
#   _server        the task tree, and the drain

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
from ._buckets import Buckets as Buckets
from ._config import ANY_NETWORK as ANY_NETWORK
from ._config import PRIVATE_NETWORKS as PRIVATE_NETWORKS
from ._config import Config as Config
from ._config import IPAddress as IPAddress
from ._config import Network as Network
from ._config import Principal as Principal
from ._config import TlsFiles as TlsFiles
from ._config import known_network as known_network
from ._connection import Connection as Connection
from ._connection import Peer as Peer
from ._connection import SocketConnection as SocketConnection
from ._connection import Transport as Transport
from ._connection import credentials as credentials
from ._exchange import Exchange as Exchange
from ._ledger import open_counts as open_counts
from ._listeners import listen_tcp as listen_tcp
from ._listening import LISTENING as LISTENING
from ._listening import ListeningSocket as ListeningSocket
from ._log import LOGGER as LOGGER
from ._log import Throttle as Throttle
from ._log import log as log
from ._marks import Countdown as Countdown
from ._outbox import SEVERAL as SEVERAL
from ._outbox import Outbox as Outbox
from ._pending import origin_of_address as origin_of_address
from ._policy import OVERFLOW_UID as OVERFLOW_UID
from ._policy import Grant as Grant
from ._policy import Policy as Policy
from ._policy import Refused as Refused
from ._policy import token_digest as token_digest
from ._pump import Source as Source
from ._reachable import keep_reachable as keep_reachable
from ._registry import Registry as Registry
from ._relay import RealmStatus as RealmStatus
from ._relay import Relay as Relay
from ._relay import Remote as Remote
from ._relay import Service as Service
from ._reload import Prepared as Prepared
from ._reload import prepare as prepare
from ._round import Round as Round
from ._router import Tap as Tap
from ._server import serve as serve
from ._session import Session as Session
from ._socket_file import SocketFile as SocketFile
from ._socket_file import check_socket_path as check_socket_path
from ._state import LeaseState as LeaseState
from ._state import RealmState as RealmState
from ._state import RelayState as RelayState
from ._state import RemoteLease as RemoteLease
from ._succession import capture as capture
from ._succession import restore as restore
from ._tls import server_context as server_context
from ._writer import report_waiting as report_waiting
