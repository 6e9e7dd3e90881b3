"""From a running relay to plain data, and from that data to a relay that continues. Each is one step.

1. Connections come in one order: of sessions first, then of arrivals; of both in the order in which they came.
2. No session may have TLS, because the state of its TLS engine cannot be moved. The caller ends those sessions before.
   The state leaves out connections with TLS that have no id yet.
3. The settings of the successor decide: a session that its policy does not allow is closed with the reason, and clients
   with events get the same events as after a reload.
4. No queue of an id elsewhere is in the state: the capture of a relay's part in a realm drops what waits in them.
"""

from collections.abc import Sequence

import trio

from ._connection import Connection
from ._pending import Arrival
from ._relay import Relay
from ._reload import judge_anew
from ._state import RelayState


def capture(relay: Relay) -> tuple[RelayState, list[Connection]]:
    """Return the state of `relay`, which does not change, and the connections that it names.

    It first offers all queued frames to the kernel once more. A relay of a realm goes down in this step.
    """
    exchange = relay.exchange
    realm = None if relay.remote is None else relay.remote.capture()
    exchange.round.end()
    sessions: dict[object, int] = {session: position for position, session in enumerate(exchange.sessions)}
    waiting_for_ids = [arrival for arrival in relay.arrivals if not arrival.refused]
    arrivals = [arrival for arrival in waiting_for_ids if arrival.connection.peer.transport != "tls"]
    state = RelayState(
        uptime=trio.current_time() - relay.started,
        sessions=[session.capture(sessions) for session in exchange.sessions],
        arrivals=[bytes(arrival.said) for arrival in arrivals],
        held=exchange.hold.capture(),
        ledger=exchange.ledger.capture(),
        dropped_sent=[(id, sorted(sources)) for id, sources in enumerate(exchange.registry.dropped_sent) if sources],
        ended=dict(relay.sessions_ended),
        wrong_tokens=[(str(origin), seconds) for origin, seconds in relay.wrong_tokens.capture()],
        handovers=relay.handovers + 1,
        realm=realm,
    )
    return state, [
        *(session.connection for session in exchange.sessions),
        *(arrival.connection for arrival in arrivals),
    ]


def restore(relay: Relay, state: RelayState, connections: Sequence[Connection]) -> None:
    """Let `relay`, which is new and does not run yet, continue from `state`, whose connections are `connections`."""
    exchange = relay.exchange
    registry = exchange.registry
    relay.started = trio.current_time() - state.uptime
    relay.handovers = state.handovers
    exchange.ledger.restore(state.ledger)
    sessions = [
        exchange.open_session(
            described.id,
            connection,
            described.grant,
            described.options,
            mapped=described.mapped,
            has_left=described.freed,
        )
        for connection, described in zip(connections[: len(state.sessions)], state.sessions, strict=True)
    ]
    if relay.remote is not None:
        relay.remote.restore(relay, state.realm)
    for session, described in zip(sessions, state.sessions, strict=True):
        session.outbox.restore(described.queue)
        for sender, frames in described.queue.paused:
            sessions[sender].pause_for(session.outbox, frames)
    for session, described in zip(sessions, state.sessions, strict=True):
        session.restore(described)
    for id, sources in state.dropped_sent:
        registry.dropped_sent[id].update(sources)
    exchange.hold.restore(state.held)
    for outbox in exchange.outboxes:
        exchange.note_places(outbox)
    for session, described in zip(sessions, state.sessions, strict=True):
        for number in described.flushes:
            session.flush(number)
    relay.sessions_ended.update(state.ended)
    relay.wrong_tokens.restore(state.wrong_tokens)
    for connection, said in zip(connections[len(sessions) :], state.arrivals, strict=True):
        relay.arrivals[Arrival(connection, bytearray(said))] = None
    judge_anew(exchange, relay.policy)
