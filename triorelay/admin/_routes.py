"""From a path to a reply."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

import trio

from ..recording import Ring
from ..relay import Relay, id_name, parse_id
from ._feed import Feed
from ._guard import Guard
from ._messages import HttpError, Later, Reply, Request, Stream, to_json
from ._monitor import Monitor
from ._pace import Pace
from ._page import dashboard

if TYPE_CHECKING:
    from ._metrics import Metrics

_CLOSE = re.compile("/clients/([^/]*)/close")
Handler = Callable[[Request], Reply | Stream | Later]
PROBES = ("GET", "HEAD")
"""Methods of requests that ask whether the relay is alive."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a path does, and whether it works without a token, because it shows nothing about the relay."""

    handler: Handler
    public: bool = False
    changes: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        return ("POST",) if self.changes else ("GET", "HEAD")


class Routes:
    """The paths of one relay's endpoint; `feed` runs beside them."""

    def __init__(self, relay: Relay, pace: Pace, ring: Ring | None = None) -> None:
        self.feed = Feed(relay, pace)
        self._relay = relay
        self._pace = pace
        self._monitor = Monitor(relay, pace, ring)
        self._metrics: Metrics | None = None
        page = dashboard()
        self._routes = {
            "/": Route(lambda _: page, public=True),
            "/healthz": Route(lambda _: Reply(b""), public=True),
            "/readyz": Route(lambda _: Reply(b""), public=True),
            "/metrics": Route(lambda _: self._read_metrics),
            "/status": Route(lambda _: Reply(to_json(relay.snapshot()))),
            "/events": Route(lambda _: self.feed.stream()),
            "/monitor": Route(lambda request: self._monitor.stream(*_wanted(request))),
            "/record": Route(lambda request: self._monitor.record(*_wanted(request))),
            "/flight": Route(lambda request: self._monitor.last(*_wanted(request))),
        }
        self._close_route = Route(self._close, changes=True)

    def probe(self, path: str) -> Reply | None:
        """Return the reply to a probe, which needs no turn and no proof; None if `path` is no probe's."""
        match path:
            case "/healthz":
                return Reply(to_json({"status": "ok"}))
            case "/readyz":
                if self._relay.draining:
                    raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "draining")
                for path, reason in self._relay.unreachable.items():
                    raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"no client can connect to {path}: {reason}")
                if self._relay.remote is not None and self._relay.remote.away:
                    raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, self._relay.remote.away)
                return Reply(to_json({"status": "ready"}))
        return None

    def answer(self, request: Request, guard: Guard) -> Reply | Stream | Later:
        """Return the reply to `request`, in one step."""
        if request.method in PROBES and (reply := self.probe(request.path)):
            return reply
        guard.check_host(request)
        route = self._close_route if _CLOSE.fullmatch(request.path) else self._routes.get(request.path)
        if route is None:
            raise HttpError(HTTPStatus.NOT_FOUND, "there is nothing at this path")
        if request.method not in route.methods:
            methods = ", ".join(route.methods)
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {methods}", (("Allow", methods),))
        if not route.public:
            guard.check_page(request)
            guard.check_token(request)
        if route.changes:
            guard.check_change(request)
        return route.handler(request)

    async def _read_metrics(self) -> Reply:
        try:
            metrics = await trio.to_thread.run_sync(self._load_metrics)
        except (OSError, RuntimeError) as error:  # there is no descriptor, or no thread, to be had
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"no thread for the metrics: {error}") from None
        async with self._pace.turn():
            return metrics.reply()

    def _load_metrics(self) -> "Metrics":
        """Load the code, 17 ms and 2 MB for a relay that is scraped, and read what /proc says of the process."""
        if self._metrics is None:
            from ._metrics import Metrics

            self._metrics = Metrics(self._relay)
        self._metrics.read_process()
        return self._metrics

    def _close(self, request: Request) -> Reply:
        id = _id(unquote(_CLOSE.sub(r"\1", request.path)))
        if not self._relay.close_client(id):
            raise HttpError(HTTPStatus.NOT_FOUND, f"no client holds the id {id_name(id)}")
        return Reply(to_json({"id": id, "name": id_name(id)}))


def _wanted(request: Request) -> tuple[int | None, int | None]:
    """Return the sender and the destination that a viewer asks for; None for all."""
    # A plus sign is an id, as typed; only forms write a space so.
    query = parse_qs(request.query.replace("+", "%2B"), keep_blank_values=True)
    source, destination = (_id(query[name][-1]) if name in query else None for name in ("from", "to"))
    return source, destination


def _id(text: str) -> int:
    try:
        return parse_id(text)
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
