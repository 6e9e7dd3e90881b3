# Several relays that act as one, over an existing engine such as NATS. Read in this order, from the bottom:
#   _config     the settings
#   _engine     what a cluster needs of an engine;  nats/  is one
#   _wire       the messages and keys
#   _uplink     the connection to the engine, as the parts see it
#   _view       ids that other relays hold
#   _lease      an id that this relay holds
#   _leases     all of them: claimed, renewed, given up, lost
#   _claims     how a client gets an id that is held once among all relays
#   _bundles    what leaves for other relays at the end of a step
#   _imports    frames from them
#   _exports    frames to them, and how clients here reach their ids
#   _cluster    how these work together, and what happens when the engine comes and goes, or a successor

from ._cluster import Cluster as Cluster
from ._config import ClusterConfig as ClusterConfig
from ._engine import Backplane as Backplane
from ._engine import Engine as Engine
from ._engine import EngineAway as EngineAway
from ._engine import Reading as Reading
from ._engine import Receiver as Receiver
