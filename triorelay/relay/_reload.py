"""Another configuration for a running relay: all of it takes effect in one step, or nothing does.

Reading files comes first, apart from that step and, in a running relay, in a thread: `prepare`.

A file that was emptied or cut off must not let more clients in. So a reload that would remove all principals, the
client CA, or the certificate of a TLS listener is refused. A user who means it restarts the relay.

The settings that `RELOADED` names take effect. Every session is checked again by what it proved when it came: one that
may not hold its id any more is closed, the others keep their session with the new rights, and those with events get
JOINED and LEFT for the clients that they now see or no longer see. Certificates are not asked for again, so a new
client CA concerns new sessions.
"""

import ssl
from dataclasses import dataclass, replace

from ..protocol import CloseReason, ConfigError, EventCode
from ._config import Config
from ._exchange import Exchange
from ._policy import Policy, Refused
from ._session import Session
from ._tls import server_context


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration, and the contents of its files.

    Attributes:
        config: the settings.
        policy: with the tokens' digests.
        tls: with certificate, key and authorities; None if no TLS files are named.
    """

    config: Config
    policy: Policy
    tls: ssl.SSLContext | None


def prepare(config: Config) -> Prepared:
    """Read the files that `config` names, each once. May block.

    Raises:
        ConfigError: one cannot be used.
    """
    return Prepared(config, Policy(config), None if config.tls_files is None else server_context(config.tls_files))


def refuse_weaker(old: Config, new: Config) -> None:
    """Refuse a configuration that lacks a setting which keeps clients out.

    Raises:
        ConfigError: names what is missing, and what to do.
    """
    if old.principals and not new.principals:
        raise ConfigError(f"principals: there are none any more, and every client might do everything; {_MEANT}")
    if old.tls and new.tls_files is None:
        raise ConfigError(f"tls_cert: it is missing, and a TLS listener needs it; {_MEANT}")
    if old.tls_files and old.tls_files.client_ca and not (new.tls_files and new.tls_files.client_ca):
        raise ConfigError(f"tls_client_ca: it is missing, and clients would need no certificate; {_MEANT}")


_MEANT = "restart the relay if you mean it"
RELOADED = ("principals", "allow", "address_map", "tls_files")


def judge_anew(exchange: Exchange, policy: Policy) -> int:
    """Give every session the rights that it has by `policy`, or close it; return how many were closed."""
    registry = exchange.registry
    registry.lists.clear()
    seen = {session: registry.seen_by(session) for session in registry.subscribers}
    denied = sum(not _judge(policy, session) for session in list(exchange.sessions))
    for session in exchange.sessions:
        _deny_paused(session)
    for session, before in seen.items():
        after = registry.seen_by(session)
        for id in sorted(after - before):
            session.notify(EventCode.JOINED, id)
        for id in sorted(before - after):
            session.notify(EventCode.LEFT, id)
    return denied


def _deny_paused(session: Session) -> None:
    """Drop waiting frames that may not come any more: no frame comes after its source's LEFT."""
    for sender in {sender for sender, _ in session.outbox.paused}:
        if isinstance(sender, Session) and sender.to is not None and session.id not in sender.to:
            session.outbox.deny(sender)


def _judge(policy: Policy, session: Session) -> bool:
    """Give `session` its new rights, or close it; return whether it stays."""
    peer = session.connection.peer
    try:
        grant = policy.grant(peer, session.grant.digest, id=session.id, mapped=session.mapped)
    except Refused:
        session.close(CloseReason.DENIED)
        # Until its task has run, the relay may still read it, and frames of it may wait. None of them is delivered.
        session.apply(replace(session.grant, to=frozenset()))
        return False
    session.apply(grant)
    return True
