# Several relays that act as one, over an engine that is there already. Read in this order:
#   _config     what a relay must be told
#   _engine     what it needs of an engine
#   _cluster    the state, and what happens when the engine comes and goes
#   _claims     how a client gets an id that is held once among all relays
#   _leases     ids that this relay holds: renewed, given up, lost
#   _view       ids that other relays hold
#   _elsewhere  how clients here reach those
#   _links      frames to them
#   _imports    frames from them
#   _news       what the engine delivers
#   _wire       what goes over the engine
#   _nats       NATS with JetStream (_nats_client: to connect to it);  _memory  an engine in memory, for tests

from ._cluster import Cluster as Cluster
from ._config import ClusterConfig as ClusterConfig
from ._engine import Backplane as Backplane
from ._engine import Engine as Engine
from ._engine import EngineAway as EngineAway
from ._engine import Receiver as Receiver
from ._memory import MemoryEngine as MemoryEngine
