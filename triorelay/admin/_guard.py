"""What a request must prove before it is answered.

1. Where there is a token, a request carries it as `Authorization: Bearer`; comparing takes the same time whatever was
   guessed. The right one is let in whatever others do, who may share its address. Of wrong ones an address has `BURST`
   at once and one a second, and is told to wait for more: that bounds the log and slows programs with an old token.
   Against guessing stands the length of the token, at least 16 bytes.
2. A web page that somebody has open may make their browser ask us. By TCP, `Host` is therefore an IP address, localhost
   or a name that was configured: a name that its owner makes point here (DNS rebinding) is none of these.
3. A page cannot read what we answer to it, but asking is enough to hold a stream open. To loopback addresses browsers
   say in `Sec-Fetch-Site` whose page asks, which no page can change: what shows or changes anything is for our own page
   and for the address bar. An `Origin` that is not ourselves is refused besides.
4. What changes something needs the header `X-Triorelay: 1` as well, which a page of another origin may not send without
   asking, and we never allow it: so it is safe with browsers too that know nothing of the third rule.
5. Addresses that lead to loopback and are none to a browser (0.0.0.0, [::], [::ffff:127.0.0.1]) are not known as
   `Host`, because the third rule would not hold there.
6. A Unix socket cannot be reached by web pages, and has its file's permissions: there only the first rule holds.
"""

import hmac
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address

import trio

from ..relay import Buckets, Throttle, origin_of_address, token_digest
from ._messages import HttpError, Request

BURST = 10
INTERVAL = 1.0
"""Seconds after which an address that has used up `BURST` is told once more that its token is wrong."""

_HOST = re.compile(r"(\[[^\]]+\]|[^:]+)(?::\d{1,5})?")


class Guard:
    """The checks of one endpoint."""

    def __init__(self, digest: bytes, hosts: Collection[str], *, unix: bool) -> None:
        """Guard an endpoint.

        Args:
            digest: of the token that a request needs; empty where it needs none.
            hosts: names that a request may carry in `Host`, besides IP addresses and localhost.
            unix: whether it is reached by a Unix socket.
        """
        self._digest = digest
        self._hosts = {"localhost", *(name.lower() for name in hosts)}
        self._unix = unix
        self._failures = Buckets(trio.current_time, interval=INTERVAL, burst=BURST)
        self._log = Throttle(trio.current_time, interval=10)

    def check_host(self, request: Request) -> None:
        """Refuse a request that was meant for somebody else.

        Raises:
            HttpError: 421.
        """
        if self._unix:
            return
        match = _HOST.fullmatch(request.headers.get("host", ""))
        if match is None or not (match[1].lower() in self._hosts or _is_ip(match[1])):
            raise HttpError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this Host is not known here: use an IP address or localhost, or name it with --admin-host",
            )

    def check_token(self, request: Request) -> None:
        """Refuse a request that does not carry the token.

        Raises:
            HttpError: 401, or 429 for a wrong one after too many from the same address.
        """
        if not self._digest:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = token_digest(token.strip().encode("latin-1"))
        if scheme.lower() == "bearer" and hmac.compare_digest(digest, self._digest):
            return
        challenge = (("WWW-Authenticate", "Bearer"),)
        if not token:
            raise HttpError(HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN", challenge)
        origin = "unix" if request.peer is None else origin_of_address(ip_address(request.peer.partition("%")[0]))
        if self._failures.wait(origin):
            raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens", (("Retry-After", "1"),))
        self._failures.count(origin)
        self._log.log(logging.WARNING, "wrong admin token", address=origin)
        raise HttpError(HTTPStatus.UNAUTHORIZED, "wrong token", challenge)

    def check_page(self, request: Request) -> None:
        """Refuse a request that a web page which is not ours has caused, as far as the browser tells.

        Raises:
            HttpError: 403.
        """
        if self._unix:
            return
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") or (
            origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
        ):
            raise HttpError(HTTPStatus.FORBIDDEN, "a page of another origin may not ask for this")

    def check_change(self, request: Request) -> None:
        """Refuse a request that changes something and does not carry what no foreign page can send.

        Raises:
            HttpError: 403.
        """
        if not self._unix and request.headers.get("x-triorelay") != "1":
            raise HttpError(HTTPStatus.FORBIDDEN, "this needs the header X-Triorelay: 1")


def _is_ip(host: str) -> bool:
    # A zone belongs to addresses in brackets alone.
    try:
        ip = IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return False
    return not (ip.is_unspecified or (isinstance(ip, IPv6Address) and ip.ipv4_mapped))
