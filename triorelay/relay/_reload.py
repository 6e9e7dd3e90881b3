"""Another configuration for a running relay: all of it takes effect in one step, or nothing does.

What `RELOADED` names is taken over. Sessions are judged anew by what they proved when they came: who may not hold its
id any more is closed, everybody else goes on with the rights that are his now, and those who get events are told who
came into their sight and who left it. Certificates are not asked for again, so a new client CA concerns new sessions.
"""

import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from ..protocol import CloseReason, EventCode
from ._config import Config
from ._log import log
from ._policy import Policy, Refused
from ._tls import server_context

if TYPE_CHECKING:
    from ._interfaces import Elsewhere
    from ._relay import Relay
    from ._session import Session

RELOADED = ("principals", "allow", "address_map", "tls_files")


def reload(relay: "Relay", config: Config) -> None:
    """Let `relay` go on with `config`.

    Raises:
        ConfigError: a file that it names cannot be used; nothing has changed.
    """
    old = relay.config
    new = replace(old, **{name: getattr(config, name) for name in RELOADED})
    policy = Policy(new)
    tls = None if new.tls_files is None else server_context(new.tls_files)
    seen = {session: _sight(relay, session) for session in relay.registry.listeners}
    relay.config, relay.policy, relay.tls = new, policy, tls
    denied = sum(not _judge(relay, session) for session in list(relay.sessions))
    for session, before in seen.items():
        _tell(relay, session, before)
    log(logging.INFO, "reloaded", principals=len(new.principals), denied=denied)
    kept = [field.name for field in fields(Config) if getattr(config, field.name) != getattr(new, field.name)]
    if kept:
        log(logging.WARNING, "these settings take a restart", settings=kept)


def _judge(relay: "Relay", session: "Session") -> bool:
    """Give `session` its new rights, or close it; return whether it stays."""
    peer = session.connection.peer
    try:
        grant = relay.policy.grant(peer, session.grant.digest)
    except Refused:
        grant = None
    moved = session.mapped and relay.policy.id_without_hello(peer) != session.id
    if grant is None or moved or (session.id and session.id not in grant.ids):
        session.close(CloseReason.DENIED)
        return False
    session.become(grant)
    return True


def _sight(relay: "Relay", session: "Session") -> set[int]:
    others: list[Session | Elsewhere] = [*relay.registry, *relay.registry.elsewhere.values()]
    return {other.id for other in others if session.may_know(other)}


def _tell(relay: "Relay", session: "Session", before: set[int]) -> None:
    after = _sight(relay, session)
    for id in sorted(after - before):
        session.notify(EventCode.JOINED, id)
    for id in sorted(before - after):
        session.notify(EventCode.LEFT, id)
