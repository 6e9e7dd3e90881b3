# The wire protocol without any input or output: pure functions and small state machines over bytes.
#   _ids        one-byte names: how they are typed, shown and grouped into sets
#   _addresses  `unix:PATH`, `tcp:HOST:PORT`, `tls:HOST:PORT`
#   _frames     chunks of two-byte frames: build, split, regroup by destination (_grouping: what of it is compiled)
#   _hello      the first two bytes of a session that has no name yet
#   _events     what the relay tells a client, and what a client may ask
#   _octets     what may be sent: bytes of any kind, and nothing else
#   _messages   whole messages between two clients: CRC-32, COBS, a zero byte (_stuffing: what of it is compiled)
#   _streams    a byte stream between two clients, made of messages
#   _calls      request and reply between two clients, made of messages
#   _reasons    refusal codes, close reasons, drop reasons
#   _errors     what all of this raises
# Nothing here imports another part of triorelay, nor trio, sockets or a clock.

from ._addresses import MAX_PATH_BYTES as MAX_PATH_BYTES
from ._addresses import Address as Address
from ._addresses import TcpAddress as TcpAddress
from ._addresses import UnixAddress as UnixAddress
from ._addresses import parse_address as parse_address
from ._addresses import parse_host_port as parse_host_port
from ._calls import CALL_HEADER as CALL_HEADER
from ._calls import LONGEST_FAIL as LONGEST_FAIL
from ._calls import CallKind as CallKind
from ._calls import CallMessage as CallMessage
from ._calls import FailReason as FailReason
from ._calls import decode_call as decode_call
from ._errors import ConfigError as ConfigError
from ._errors import ConnectionLost as ConnectionLost
from ._errors import HelloRefused as HelloRefused
from ._errors import LocalProtocolError as LocalProtocolError
from ._errors import ProtocolError as ProtocolError
from ._errors import RelayError as RelayError
from ._errors import RemoteProtocolError as RemoteProtocolError
from ._events import Event as Event
from ._events import EventCode as EventCode
from ._events import FrameReader as FrameReader
from ._events import encode_event as encode_event
from ._frames import LARGE_CHUNK as LARGE_CHUNK
from ._frames import address_frames as address_frames
from ._frames import regroup as regroup
from ._frames import runs as runs
from ._frames import source_counts as source_counts
from ._hello import Hello as Hello
from ._hello import HelloOption as HelloOption
from ._hello import decode_hello as decode_hello
from ._hello import encode_hello as encode_hello
from ._ids import ALL_IDS as ALL_IDS
from ._ids import RELAY as RELAY
from ._ids import id_byte as id_byte
from ._ids import id_from_path as id_from_path
from ._ids import id_name as id_name
from ._ids import id_text as id_text
from ._ids import parse_id as parse_id
from ._ids import parse_id_set as parse_id_set
from ._messages import DEFAULT_MESSAGE_LIMIT as DEFAULT_MESSAGE_LIMIT
from ._messages import MessageReader as MessageReader
from ._messages import encode_message as encode_message
from ._messages import frame_sealed as frame_sealed
from ._messages import seal_message as seal_message
from ._messages import stuff_sealed as stuff_sealed
from ._octets import check_octets as check_octets
from ._reasons import CloseReason as CloseReason
from ._reasons import DropReason as DropReason
from ._reasons import Refusal as Refusal
from ._streams import LARGEST_NUMBER as LARGEST_NUMBER
from ._streams import Half as Half
from ._streams import StreamKind as StreamKind
from ._streams import StreamState as StreamState
