# A client of NATS for Trio, as much of one as a realm needs. Read in this order:
#   _protocol     bytes to events, and back
#   _credentials  what proves the relay's identity
#   _connection   a socket: publish, subscribe, request
#   _bucket       JetStream's table of keys: compare-and-set, watch
#   _engine       these as a realm's engine

from ._engine import NatsBackplane as NatsBackplane
