# The Trio client of a relay.
#   _open       open_client: from arguments to a block in which a client lives
#   _client     Client: what its user holds
#   _link       one session after another: sending, flushing, reconnecting, closing
#   _session    one connection, from the hello to its end: a reader and a writer
#   _transport  Unix, TCP and TLS connections; binding a path
#   _outbox     bytes to be written, coalesced and bounded
#   _inbox      which receiver gets what arrives, and how much may wait
#   _presence   which clients are connected, and which frames did not arrive
#   _requests   numbered questions to the relay and their answers
#   _stream     PeerStream, a byte stream to one peer; _incoming is its protocol side
#   _messages   MessageChannel, whole messages; _arrivals assembles those that arrive
#   _channel    PeerChannel, whole messages with one peer
#   _calls      Calls, request and reply; _switchboard is their protocol side, _answers what the relay may have dropped
#   _idle       writing at the end of a burst
#   _turn       whose turn it is, Trio's thread's or another's
#   _thread     a client in a thread of its own, for programs without Trio
#   _reconnect  Backoff, when to try again
#   _bare       a nursery whose one error comes out bare
#   _exclusive  work that one task at a time may do
#   _errors     what only a client raises
# Imports only triorelay.protocol, and trio.

from ._calls import Calls as Calls
from ._channel import PeerChannel as PeerChannel
from ._client import Client as Client
from ._errors import CallFailed as CallFailed
from ._errors import NotDelivered as NotDelivered
from ._errors import PeerLeft as PeerLeft
from ._messages import MessageChannel as MessageChannel
from ._open import open_client as open_client
from ._presence import ConnectionEvent as ConnectionEvent
from ._presence import Events as Events
from ._reconnect import Backoff as Backoff
from ._stream import PeerStream as PeerStream
from ._transport import Connect as Connect
