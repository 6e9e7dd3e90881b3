"""Who may ask, and whose web pages may not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.admin.endpoint import TOKEN, Endpoint, open_endpoint
from triorelay.admin._guard import BURST, Guard
from triorelay.admin._messages import HttpError, Request
from triorelay.relay import token_digest
from triorelay.relay._buckets import KEYS

if TYPE_CHECKING:
    from pathlib import Path

    import trio.testing

RIGHT = ("Authorization", f"Bearer {TOKEN}")
WRONG = ("Authorization", "Bearer a token of the same length")


async def test_with_a_token_everything_that_shows_the_relay_asks_for_it(token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint:
        for path in ("/status", "/metrics", "/events", "/monitor"):
            refused = await endpoint.fetch(path)
            assert (refused.status, list(refused.json())) == (401, ["error"]), path
            assert refused.headers["www-authenticate"] == "Bearer"
        assert (await endpoint.post("/clients/A/close")).status == 401
        assert (await endpoint.fetch("/status", WRONG)).status == 401
        assert (await endpoint.fetch("/status", RIGHT)).status == 200
        assert (await endpoint.post("/clients/A/close", RIGHT)).status == 404


async def test_what_shows_nothing_of_the_relay_asks_for_no_token(token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint:
        for path in ("/", "/healthz", "/readyz"):
            assert (await endpoint.fetch(path)).status == 200, path


async def test_wrong_tokens_are_one_log_line_without_the_token(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_endpoint(token_file=token_file) as endpoint:
        caplog.clear()
        for _ in range(5):
            await endpoint.fetch("/status", WRONG)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.getMessage(), record.fields) for record in lines] == [  # type: ignore[attr-defined]
        ("wrong admin token", {"address": "127.0.0.1"})
    ]


async def test_a_client_that_guesses_too_often_must_wait(token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint:
        while (got := await endpoint.fetch("/status", WRONG)).status == 401:
            pass
        assert (got.status, got.headers["retry-after"]) == (429, "1")
        assert (await endpoint.fetch("/healthz")).status == 200


def request(peer: str | None, *headers: tuple[str, str], method: str = "GET") -> Request:
    return Request(method, "/", "", {name.lower(): value for name, value in headers}, peer)


def status_of(guard: Guard, peer: str, *headers: tuple[str, str]) -> int:
    try:
        guard.check_token(request(peer, *headers))
    except HttpError as error:
        return error.status
    return 200


async def test_guessing_is_slowed_down_by_address(autojump_clock: trio.testing.MockClock) -> None:
    guard = Guard(token_digest(TOKEN.encode()), (), unix=False)
    guesses = [status_of(guard, f"2001:db8::{n:x}", WRONG) for n in range(BURST + 1)]
    assert guesses == [401] * BURST + [429]
    assert status_of(guard, "2001:db8:0:1::1", WRONG) == 401
    autojump_clock.jump(1)
    assert [status_of(guard, "2001:db8::1", WRONG) for _ in range(2)] == [401, 429]


async def test_the_right_token_is_let_in_whatever_others_of_its_address_do() -> None:
    guard = Guard(token_digest(TOKEN.encode()), (), unix=False)
    for _ in range(2 * BURST):
        status_of(guard, "10.0.0.1", WRONG)
        assert status_of(guard, "10.0.0.1", RIGHT) == 200
    assert status_of(guard, "10.0.0.1", WRONG) == 429


async def test_every_token_is_compared_in_constant_time_as_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("triorelay.admin._guard.hmac.compare_digest", compare)
    guard = Guard(token_digest(TOKEN.encode()), (), unix=False)
    for _ in range(2 * BURST):
        status_of(guard, "10.0.0.1", WRONG)
    assert status_of(guard, "10.0.0.1", RIGHT) == 200
    assert len(compared) == 2 * BURST + 1
    assert {len(digest) for pair in compared for digest in pair} == {32}


async def test_asking_without_a_token_is_no_guess() -> None:
    guard = Guard(token_digest(TOKEN.encode()), (), unix=False)
    assert [status_of(guard, "10.0.0.1") for _ in range(2 * BURST)] == [401] * 2 * BURST


async def test_the_addresses_remembered_are_bounded(mock_clock: trio.testing.MockClock) -> None:
    guard = Guard(token_digest(TOKEN.encode()), (), unix=False)
    for n in range(2 * KEYS):
        status_of(guard, f"10.0.{n // 256}.{n % 256}", WRONG)
    assert len(guard._failures._full_at) == KEYS


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9736", 200),
        ("192.168.1.5:80", 200),
        ("[::1]:9736", 200),
        ("[fe80::1%eth0]", 200),
        ("localhost:9736", 200),
        ("LOCALHOST", 200),
        ("relay.example", 200),
        ("Relay.Example:9736", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.0.0.1%evil.example", 421),
        ("[::1%]", 421),
        ("[127.0.0.1]", 421),
        # A browser does not take these for loopback, and would not say there whose page asks.
        ("0.0.0.0:9736", 421),
        ("[::]:9736", 421),
        ("[::ffff:127.0.0.1]:9736", 421),
        ("localhost:", 421),
        ("a b", 421),
        ("", 421),
    ],
)
async def test_by_tcp_only_known_hosts_are_served(host: str, status: int) -> None:
    async with open_endpoint(hosts=("relay.example",)) as endpoint:
        for path in ("/", "/status"):
            got = await endpoint.fetch(path, ("Host", host))
            assert got.status == status
        assert status == 200 or list(got.json()) == ["error"]
        # Probes show nothing, and orchestrators do not send our name.
        for path in ("/healthz", "/readyz"):
            assert (await endpoint.fetch(path, ("Host", host))).status == 200


async def test_a_post_needs_the_header_that_no_foreign_page_can_send(endpoint: Endpoint) -> None:
    refused = await endpoint.fetch("/clients/A/close", method="POST")
    assert (refused.status, list(refused.json())) == (403, ["error"])


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:9736", 404),
        ("https://127.0.0.1:9736", 404),
        ("http://127.0.0.1:9737", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_a_post_from_a_foreign_origin_is_refused(endpoint: Endpoint, origin: str, status: int) -> None:
    got = await endpoint.post("/clients/A/close", ("Host", "127.0.0.1:9736"), ("Origin", origin))
    assert got.status == status


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("new", 403)]
)
@pytest.mark.parametrize("path", ["/status", "/metrics", "/events", "/monitor"])
async def test_what_shows_the_relay_is_not_for_pages_of_another_origin(
    endpoint: Endpoint, path: str, site: str, status: int
) -> None:
    got = await endpoint.fetch(path, ("Sec-Fetch-Site", site), method="HEAD")
    assert got.status == status


async def test_a_foreign_page_opens_no_stream_and_sees_only_what_shows_nothing(endpoint: Endpoint) -> None:
    for foreign in [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://evil.example"), ("Origin", "null")]:
        refused = await endpoint.fetch("/monitor", foreign)
        assert (refused.status, list(refused.json())) == (403, ["error"])
        for path in ("/", "/healthz", "/readyz"):
            assert (await endpoint.fetch(path, foreign)).status == 200
    assert endpoint.relay.router.tap is None


async def test_the_page_itself_may_ask_by_whatever_name_it_has(endpoint: Endpoint) -> None:
    for host in ("localhost:9736", "[::1]:9736"):
        got = await endpoint.fetch("/status", ("Host", host), ("Origin", f"http://{host}"))
        assert got.status == 200


@pytest.mark.parametrize("path", ["/", "/status"])
async def test_no_reply_invites_another_origin(endpoint: Endpoint, path: str) -> None:
    got = await endpoint.fetch(path, ("Origin", "http://evil.example"))
    assert not [name for name in got.headers if name.startswith("access-control-")]
