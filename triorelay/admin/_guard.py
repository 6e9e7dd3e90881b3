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

import hashlib
import hmac
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import trio

from ..relay import Throttle
from ._messages import HttpError, Request

BURST = 10
ADDRESSES = 1024
"""Addresses whose failures are remembered; one more forgets the oldest."""

_HOST = re.compile(r"(\[[^\]]+\]|[^:]+)(?::\d{1,5})?")


class Guard:
    """The checks of one endpoint."""

    def __init__(self, token: bytes | None, hosts: Collection[str], *, unix: bool) -> None:
        self._digest = None if token is None else _digest(token)
        self._hosts = {"localhost", *(name.lower() for name in hosts)}
        self._unix = unix
        self._failures: dict[str, tuple[float, float]] = {}
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
        if self._digest is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip().encode("latin-1")), self._digest):
            return
        challenge = (("WWW-Authenticate", "Bearer"),)
        if not token:
            raise HttpError(HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN", challenge)
        self._count_failure(_address(request.peer))
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

    def _count_failure(self, address: str) -> None:
        now = trio.current_time()
        left, last = self._failures.get(address, (BURST, now))
        left = min(BURST, left + now - last)
        if left < 1:
            raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens", (("Retry-After", "1"),))
        self._log.log(logging.WARNING, "wrong admin token", address=address)
        self._failures.pop(address, None)
        self._failures[address] = (left - 1, now)
        if len(self._failures) > ADDRESSES:
            del self._failures[next(iter(self._failures))]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _is_ip(host: str) -> bool:
    # A zone belongs to addresses in brackets alone.
    try:
        ip = IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return False
    return not (ip.is_unspecified or (isinstance(ip, IPv6Address) and ip.ipv4_mapped))


def _address(peer: str | None) -> str:
    """Return what is one place to guess from: an IPv4 address, an IPv6 /64, the Unix socket."""
    if peer is None:
        return "unix"
    ip = ip_address(peer.partition("%")[0])
    return str(ip) if ip.version == 4 else str(IPv6Network((ip, 64), strict=False))
