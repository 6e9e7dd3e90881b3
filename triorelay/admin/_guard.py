"""What a request must prove before it is answered.

1. If the endpoint has a token, a request carries it as `Authorization: Bearer`; the comparison takes the same time for
   every guess. The right token is always accepted, even if other clients of its address guess. An address may send
   `BURST` wrong ones at once and then one a second: that bounds the log and slows programs with an old token.
   The length of the token, at least 16 bytes, protects against guessing.
2. A web page can make its reader's browser send requests here. Over TCP, `Host` must therefore be an IP address,
   localhost or a configured name: a name that an attacker makes point here (DNS rebinding) is none of these.
3. A page of another origin cannot read the answer, but a request is enough to hold a stream open. Browsers send
   `Sec-Fetch-Site` to loopback addresses, which says which page asks and which no page can change: paths that show or
   change anything accept only the endpoint's own page and the address bar. A foreign `Origin` is refused too.
4. A request that changes something also needs the header `X-Triorelay: 1`, which a page of another origin may not send
   without permission, and the endpoint never permits it. So old browsers without the third rule are safe too.
5. Addresses that lead to loopback but not for a browser (0.0.0.0, [::], [::ffff:127.0.0.1]) are refused as `Host`,
   because the third rule would not hold there.
6. A Unix socket cannot be reached by web pages, and has its file's permissions: there only the first rule holds.
"""

import hmac
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..relay import Buckets, Throttle, origin_of_address, token_digest
from ._messages import HttpError, Request

BURST = 10
INTERVAL = 1.0
"""Seconds after which an address that has used up `BURST` gets another answer to a wrong token."""

_HOST = re.compile(r"(\[[^\]]+\]|[^:]+)(?::\d{1,5})?")


class Guard:
    """The checks of one endpoint."""

    def __init__(self, digest: bytes, hosts: Collection[str], *, unix: bool) -> None:
        """Guard an endpoint: one that is reached by a Unix socket, or under certain names.

        An empty digest stands for no token.
        """
        self._digest = digest
        self._hosts = {"localhost", *(name.lower() for name in hosts)}
        self._unix = unix
        self._failures = Buckets(interval=INTERVAL, burst=BURST)
        self._log = Throttle(interval=10)

    def check_host(self, request: Request) -> None:
        """Refuse (421) a request with the name of another host."""
        if self._unix:
            return
        match = _HOST.fullmatch(request.headers.get("host", ""))
        if match is None or not (match[1].lower() in self._hosts or _is_ip(match[1])):
            raise HttpError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this Host is not known here: use an IP address or localhost, or name it with --admin-host",
            )

    def check_token(self, request: Request) -> None:
        """Refuse (401) a request without the token, and (429) one after too many wrong ones of its address."""
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
        """Refuse (403) a request that a web page of another origin has caused, if the browser says so."""
        if self._unix:
            return
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") or (
            origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
        ):
            raise HttpError(HTTPStatus.FORBIDDEN, "a page of another origin may not ask for this")

    def check_change(self, request: Request) -> None:
        """Refuse (403) a request that changes something and does not carry what no foreign page can send."""
        if not self._unix and request.headers.get("x-triorelay") != "1":
            raise HttpError(HTTPStatus.FORBIDDEN, "this needs the header X-Triorelay: 1")


def _is_ip(host: str) -> bool:
    # A zone belongs to addresses in brackets alone.
    try:
        ip = IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return False
    return not (ip.is_unspecified or (isinstance(ip, IPv6Address) and ip.ipv4_mapped))
