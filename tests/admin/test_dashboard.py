"""The dashboard in a real browser: what a user sees, and can do."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.admin.chromium import Browser, Chromium, Page
from tests.admin.endpoint import TOKEN, Endpoint, FakeRemote, open_endpoint
from triorelay.protocol import DropReason
from triorelay.relay import Config, RealmStatus
from triorelay.relay._connection import Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.needs("chromium")

REALM = RealmStatus(
    realm="plant",
    relay="hall-1f00",
    up=True,
    elsewhere=[(66, "yard-77aa"), (67, "gate-4b1c"), (200, "yard-77aa")],
    shared=[],
    lost=0,
    garbage=0,
    reconnects=0,
    confirmed_seconds=0.5,
)

DESKTOP, PHONE, SMALL_PHONE = (1280, 900), (390, 844), (320, 568)


@pytest.fixture(scope="module")
def chromium(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    running = Chromium(require("chromium"), tmp_path_factory.mktemp("chromium"))
    yield running
    running.end()


@pytest.fixture
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    async with chromium.open() as running:
        yield running


async def show(browser: Browser, endpoint: Endpoint, fragment: str = "") -> Page:
    """The dashboard of an endpoint, from its first status on."""
    page = await browser.open_page()
    await page.visit(endpoint.url + fragment)
    await page.until("document.querySelector('#state').dataset.state === 'live'")
    return page


def row(name: str) -> str:
    """The row of a client, as an expression."""
    return f"[...document.querySelectorAll('#clients tbody tr')].find(row => row.cells[0].innerText === {name!r})"


async def events(page: Page) -> str:
    return str(await page.evaluate("document.querySelector('#events').innerText"))


async def test_joins_traffic_drops_and_leaves_appear(browser: Browser, endpoint: Endpoint) -> None:
    page = await show(browser, endpoint)
    assert "No client is connected" in await page.evaluate("document.body.innerText")
    async with endpoint.client("A") as a, endpoint.client("B") as b:
        for name in "AB":
            assert "memory" in await page.until(f"{row(name)}.innerText")
            assert f"{name} joined: memory" in await events(page)
        await a.send_all(b"B." * 40 + b"Z." * 7)
        assert len(await b.receive_some()) == 80
        await page.until("document.querySelector('#written').innerText === '40'")
        assert await page.evaluate("document.querySelector('#dropped').innerText") == "7"
        assert await page.evaluate("document.querySelector('#heat .cell title').textContent") == "A to B: 40 frames"
        assert re.match(r"A\s+to\s+B\s+40\s", await page.evaluate("document.querySelector('#pairs').innerText"))
        assert re.match(r"no route\s+7\s+A to Z", await page.evaluate("document.querySelector('#drops').innerText"))
        assert "A to Z: 7 frames dropped, no route" in await events(page)
        await page.until("document.querySelector('#chart').ariaLabel.match(/at most [1-9]/)")
        assert await page.evaluate("document.title") == "triorelay: 2 clients"
    await page.until("!document.querySelector('#clients tbody tr')")
    assert "B left" in await events(page)
    assert page.errors == []


async def test_a_status_that_comes_twice_is_no_rate(browser: Browser, endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a:
        await a.send_all(b"Z." * 5)
        status = (await endpoint.fetch("/status")).body.decode()
    told = f"event: status\ndata: {status}\n\n" * 2
    answer = f"let asked = 0; fetch = async () => asked++ ? new Promise(() => 0) : new Response({json.dumps(told)})"
    page = await browser.open_page()
    await page.command("Page.addScriptToEvaluateOnNewDocument", source=answer)
    await page.visit(endpoint.url)
    # The answer ends, so the page has shown it all.
    await page.until("document.querySelector('#state').innerText === 'reconnecting'")
    assert "NaN" not in await page.evaluate("document.body.innerHTML")
    assert await page.evaluate("document.querySelector('#rate-in').innerText") == "0"
    assert page.errors == []


async def show_told(browser: Browser, endpoint: Endpoint, told: list[dict[str, object]]) -> Page:
    """The dashboard after the endpoint has sent these statuses."""
    stream = "".join(f"event: status\ndata: {json.dumps(status)}\n\n" for status in told)
    answer = f"let asked = 0; fetch = async () => asked++ ? new Promise(() => 0) : new Response({json.dumps(stream)})"
    page = await browser.open_page()
    await page.command("Page.addScriptToEvaluateOnNewDocument", source=answer)
    await page.visit(endpoint.url)
    # The answer ends, so the page has shown it all.
    await page.until("document.querySelector('#state').innerText === 'reconnecting'")
    return page


async def test_each_holder_of_a_shared_id_is_shown_and_the_id_once_at_its_relay(
    browser: Browser, endpoint: Endpoint
) -> None:
    async with endpoint.client("N"):
        status = json.loads((await endpoint.fetch("/status")).body)
    status["clients"] = 2 * [status["clients"][0] | {"shared": True}]
    names = "[...document.querySelectorAll('#clients tbody tr')].map(row => row.cells[0].innerText)"
    page = await show_told(browser, endpoint, [status])
    assert await page.evaluate(names) == ["N (1 of 2)", "N (1 of 2)"]
    status["cluster"] = asdict(
        replace(
            REALM,
            elsewhere=[(ord("N"), "gate-4b1c"), (ord("N"), "yard-77aa")],
            shared=[(ord("N"), "gate-4b1c", 1), (ord("N"), "yard-77aa", 2)],
        )
    )
    page = await show_told(browser, endpoint, [status])
    assert await page.evaluate(names) == ["N (1 of 5)", "N (1 of 5)"]
    relays = "[...document.querySelectorAll('#relays > li')].map(line => line.innerText.split(/\\s+/).join(' '))"
    assert await page.evaluate(relays) == ["hall-1f00 this relay, 1 id N", "gate-4b1c 1 id N", "yard-77aa 1 id N"]
    assert page.errors == []


async def test_each_wait_of_clients_that_share_an_id_is_logged_once(browser: Browser, endpoint: Endpoint) -> None:
    async with endpoint.client("N"), endpoint.client("S"):
        status = json.loads((await endpoint.fetch("/status")).body)
    one, slow = status["clients"]
    waits = one | {"waiting_for": ord("S"), "waiting_seconds": 3}
    told = []
    for second, holders in enumerate(([one, one], [waits, one], [waits, one], [waits, waits], [waits, waits])):
        now = status | {"uptime_seconds": 10 + second}
        now["clients"] = [*holders, slow | {"queued": 7}, slow | {"queued": 0}]
        told.append(now)
    page = await show_told(browser, endpoint, told)
    assert (await events(page)).count("waits for S") == 2
    assert "7 frames queued there" in await page.evaluate("document.querySelector('#waits').innerText")
    assert page.errors == []


async def test_a_waiting_client_stands_out(browser: Browser) -> None:
    config = Config(queue_bytes=2, stall_timeout=0)
    async with (
        open_endpoint(config=config) as endpoint,
        endpoint.client("F") as f,
        endpoint.client("S"),
        trio.open_nursery() as nursery,
    ):
        page = await show(browser, endpoint)
        assert await page.evaluate("document.querySelector('#waits').hidden")
        nursery.start_soon(f.send_all, b"S." * 200_000)
        await page.until("!document.querySelector('#waits').hidden")
        waits = await page.evaluate("document.querySelector('#waits').innerText")
        assert re.search(r"F waits for S\s+since \d\d:\d\d:\d\d, \d+ s; [\d,]+ frames queued there", waits)
        assert "waits for S" in await page.evaluate(f"{row('F')}.innerText")
        assert await page.evaluate(f"{row('S')}.classList.contains('awaited')")
        assert (await page.evaluate("document.title")).startswith("(1 waiting)")
        assert "F waits for S" in await events(page)
        assert page.errors == []
        nursery.cancel_scope.cancel()


async def test_closing_a_client_asks_first_and_works_by_keyboard(browser: Browser, endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a:
        page = await show(browser, endpoint)
        await page.until(row("A"))
        await page.until(
            "(document.activeElement.ariaLabel === 'Close A') || (document.querySelector('td button').focus(), false)"
        )
        await page.press("Enter")
        await page.until("document.querySelector('#close-dialog').open")
        await page.press("Escape")
        await page.until("!document.querySelector('#close-dialog').open")
        # The table was redrawn meanwhile, or will be: the focus stays where it was.
        seconds = "document.querySelector('#uptime').innerText"
        await page.until(f"{seconds} !== {json.dumps(await page.evaluate(seconds))}")
        assert await page.evaluate("document.activeElement.ariaLabel") == "Close A"
        await page.press("Enter")
        await page.until("document.querySelector('#close-dialog').open")
        await page.press("Tab")
        assert await page.evaluate("document.activeElement.innerText") == "Close A"
        await page.press("Enter")
        assert await a.receive_some() == b""
        await page.until("!document.querySelector('#clients tbody tr')")
        assert "A left: closed" in await events(page)
        assert page.errors == []


async def test_the_focus_stays_where_it_is_while_others_come_and_go(browser: Browser, endpoint: Endpoint) -> None:
    focused = "document.activeElement.ariaLabel"
    async with endpoint.client("B"):
        async with endpoint.client("A"):
            page = await show(browser, endpoint)
            await page.until(row("B"))
            await page.evaluate(f"{row('B')}.querySelector('button').focus()")
        await page.until(f"!{row('A')}")
        assert await page.evaluate(focused) == "Close B"
        async with endpoint.client("A"), endpoint.client("C"):
            await page.until(row("C"))
            assert await page.evaluate(focused) == "Close B"
            order = "[...document.querySelectorAll('#clients tbody tr')].map(row => row.cells[0].innerText).join('')"
            assert await page.evaluate(order) == "ABC"


@pytest.mark.parametrize("name", [".", "/", "%", "\xff"])
async def test_a_client_may_be_closed_whatever_its_name_means_in_an_address(
    browser: Browser, endpoint: Endpoint, name: str
) -> None:
    async with endpoint.client(name) as client:
        page = await show(browser, endpoint)
        await page.until("document.querySelector('td button')")
        await page.evaluate("document.querySelector('td button').click()")
        await page.evaluate("document.querySelector('#close-yes').click()")
        await page.until("!document.querySelector('#clients tbody tr')")
        assert await client.receive_some() == b""
        assert page.errors == []


async def test_the_token_comes_from_the_fragment_and_leaves_the_address_bar(browser: Browser, token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint:
        for form in ("#", "#token="):
            page = await show(browser, endpoint, form + TOKEN.replace(" ", "%20"))
            assert await page.evaluate("location.href") == endpoint.url
            assert page.errors == []


@pytest.mark.parametrize("token", ["100% a token of good length", "a token of good length %4", "%zz of good length"])
async def test_a_percent_sign_in_the_token_need_not_be_encoded(browser: Browser, tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    async with open_endpoint(token_file=path) as endpoint:
        page = await show(browser, endpoint, f"#token={token}")
        assert await page.evaluate("location.href") == endpoint.url
        assert page.errors == []


ASKED = "document.querySelector('#token-dialog').open && document.activeElement.id === 'token'"
WHY = "document.querySelector('#token-why').innerText"


async def test_a_token_that_no_request_can_carry_is_asked_for_again(browser: Browser, token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint, endpoint.client("A"):
        page = await browser.open_page()
        await page.visit(f"{endpoint.url}#token=tok\N{EN DASH}en%0a")
        await page.until(ASKED)
        # It is remembered, and a reload begins with it.
        await page.command("Page.reload")
        await page.until(f"{ASKED} && {WHY}.startsWith('a token is printable ASCII')")
        await page.command("Input.insertText", text=TOKEN)
        await page.press("Enter")
        await page.until(row("A"))
        assert page.errors == []


async def test_a_token_may_come_late_into_the_page_that_is_open(browser: Browser, token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint, endpoint.client("A"):
        page = await browser.open_page()
        await page.visit(endpoint.url)
        await page.until(ASKED)
        await page.evaluate(f"void (loaded = true, location.hash = 'token=' + {TOKEN!r})")
        await page.until(row("A"))
        assert await page.evaluate("location.href") == endpoint.url
        assert await page.evaluate("loaded")
        assert not await page.evaluate(ASKED)


async def test_without_a_token_the_page_asks_for_it_until_it_is_right(browser: Browser, token_file: Path) -> None:
    async with open_endpoint(token_file=token_file) as endpoint, endpoint.client("A"):
        page = await browser.open_page()
        await page.visit(endpoint.url)
        for token in ("a wrong token, long enough", TOKEN):
            await page.until(ASKED)
            assert not await page.evaluate(row("A"))
            await page.command("Input.insertText", text=token)
            await page.press("Enter")
            asked_again = "document.querySelector('#token-why').innerText.startsWith('wrong')"
            await page.until(f"!document.querySelector('#token-dialog').open || {asked_again}")
        await page.until(row("A"))
        assert {error.split(" http")[0] for error in page.errors} == {
            "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
        }


async def test_a_page_of_another_origin_takes_no_stream_and_sees_no_frame(browser: Browser, endpoint: Endpoint) -> None:
    # Another port of the same host is as near as a foreign page can be.
    async with open_endpoint() as other:
        page = await browser.open_page()
        # Not the dashboard: its own policy would keep it from asking elsewhere, and an attacker's page has none.
        await page.visit(f"{other.url}healthz")
        for url in (endpoint.url, endpoint.url.replace("127.0.0.1", "localhost")):
            ask = f"fetch({url + 'monitor'!r}, {{mode: 'no-cors'}}).then(answer => answer.text())"
            await page.evaluate(f"void {ask}.then(() => over = {url!r})")
            # An answer that is not a stream has an end.
            await page.until(f"over === {url!r}")
        assert endpoint.relay.router.tap is None


async def test_after_a_restart_the_page_comes_back_by_itself_and_says_so(browser: Browser) -> None:
    async with open_endpoint() as endpoint, endpoint.client("A"):
        page = await show(browser, endpoint)
        await page.until(row("A"))
        address = endpoint.address
        # The next relay's uptime must be the smaller one for the page to know that it is another.
        await page.until("document.querySelector('#uptime').innerText.match(/up [1-9]/)")
    await page.until("document.querySelector('#state').innerText === 'reconnecting'")
    assert "No connection" in await page.evaluate("document.querySelector('#lost').innerText")
    assert not await page.evaluate(
        "[...document.querySelectorAll('td button')].some(button => button.checkVisibility())"
    )
    async with open_endpoint(address) as endpoint, endpoint.client("B"):
        await page.until("document.querySelector('#state').dataset.state === 'live'")
        await page.until(row("B"))
        assert await page.evaluate("document.querySelector('#lost').hidden")
        told = await events(page)
        assert "Connection lost" in told
        assert "Dashboard connected again" in told
        assert "Relay was restarted" in told
        await page.until(f"{row('B')}.querySelector('button').checkVisibility()")
    # The browser itself reports that no server answered, and reports nothing else.
    assert {error.split(" http")[0] for error in page.errors} <= {
        "Failed to load resource: net::ERR_CONNECTION_REFUSED"
    }


async def test_which_relay_of_the_realm_holds_which_id(browser: Browser, endpoint: Endpoint) -> None:
    text = "document.querySelector('#realm').innerText"
    relays = "[...document.querySelectorAll('#relays > li')].map(line => line.innerText.split(/\\s+/).join(' '))"
    async with endpoint.client("A"):
        page = await show(browser, endpoint)
        assert await page.evaluate("document.querySelector('#realm').hidden")
        endpoint.relay.remote = remote = FakeRemote(REALM)
        await page.until("!document.querySelector('#realm').hidden")
        assert await page.evaluate(relays) == [
            "hall-1f00 this relay, 1 id A",
            "gate-4b1c 1 id C",
            "yard-77aa 2 ids B 0xc8",
        ]
        assert (await page.evaluate(text)).startswith("Realm plant\n")
        assert "cannot be reached" not in await page.evaluate(text)

        remote.cluster = replace(REALM, up=False, elsewhere=[], lost=3, garbage=1)
        await page.until("!document.querySelector('#realm-away').hidden")
        assert await page.evaluate(relays) == ["hall-1f00 this relay, 1 id A"]
        assert "3 frames lost on the way, 1 message not understood" in await page.evaluate(text)
        assert "Realm cannot be reached" in await events(page)
        remote.cluster = REALM
        await page.until("document.querySelector('#realm-away').hidden")
        assert "Realm reached again" in await events(page)
        assert page.errors == []


async def test_a_draining_relay_is_shown_as_such_and_nothing_can_be_closed(browser: Browser) -> None:
    async with open_endpoint(config=Config(drain_timeout=0)) as endpoint, endpoint.client("A"):
        page = await show(browser, endpoint)
        endpoint.relay.drain()
        await page.until("document.querySelector('#state').innerText === 'draining'")
        assert not await page.evaluate(f"{row('A')}.querySelector('button').checkVisibility()")
        assert page.errors == []


async def test_a_name_that_a_client_chose_is_only_text(browser: Browser, endpoint: Endpoint) -> None:
    name = "<img src=x onerror=alert(1)><style>body{display:none}</style>"
    async with endpoint.memory._listener.connect(Peer("memory", name, bound_id=ord("<"), pid=1, process=name)):
        page = await show(browser, endpoint)
        await page.until(row("<"))
        assert name in await page.evaluate(f"{row('<')}.innerText")
        assert await page.evaluate("document.querySelectorAll('img, body style').length") == 0
        assert page.errors == []


async def test_many_clients_and_pairs_are_drawn(browser: Browser, endpoint: Endpoint) -> None:
    async with trio.open_nursery() as nursery:
        opened = [await _open(endpoint, nursery, chr(id)) for id in range(1, 256)]
        everybody = bytes(range(1, 256)).replace(b"", b".")[1:]
        for client in opened[::16]:
            await client.send_all(everybody)
        page = await show(browser, endpoint)
        assert await page.until("document.querySelectorAll('#clients tbody tr').length === 255")
        assert await page.until("document.querySelectorAll('#heat .cell').length") == 16 * 255
        assert page.errors == []
        nursery.cancel_scope.cancel()


async def test_the_worst_and_newest_of_very_many_drops_are_shown(browser: Browser, endpoint: Endpoint) -> None:
    dropped = endpoint.relay.ledger.dropped
    dropped |= {(a, b, DropReason.NO_ROUTE): 1 for a in range(1, 101) for b in range(1, 101)}
    dropped[65, 66, DropReason.NO_ROUTE] = 100
    page = await show(browser, endpoint)
    assert "A to B and many more pairs" in await page.evaluate("document.querySelector('#drops').innerText")
    # One that is listed from now on, and then one that takes its place among the others.
    dropped[90, 90, DropReason.NO_ROUTE] += 50
    await page.until("document.querySelector('#events').innerText.includes('Z to Z: 50 frames dropped')")
    dropped[90, 90, DropReason.NO_ROUTE] += 7
    await page.until("document.querySelector('#events').innerText.includes('Z to Z: 57 frames dropped')")
    assert page.errors == []


async def _open(endpoint: Endpoint, nursery: trio.Nursery, id: str) -> Any:
    async def hold(task_status: trio.TaskStatus[object]) -> None:
        async with endpoint.client(id) as client:
            task_status.started(client)
            await trio.sleep_forever()

    return await nursery.start(hold)


async def test_frames_to_id_0_are_frames_to_the_relay(browser: Browser, endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a:
        page = await show(browser, endpoint)
        await a.send_all(b"\0.")
        await page.until("document.querySelector('#drops li')")
        assert "A to the relay" in await page.evaluate("document.querySelector('#drops').innerText")
        assert "A to the relay: 1 frame dropped" in await events(page)


@asynccontextmanager
async def busy_page(browser: Browser) -> AsyncIterator[Page]:
    """A page with everything on it that there can be: clients, waits, a realm, pairs, drops, events."""
    config = Config(queue_bytes=2, stall_timeout=0)
    async with (
        open_endpoint(config=config) as endpoint,
        endpoint.client("A") as a,
        endpoint.client("F") as f,
        endpoint.client("S"),
        trio.open_nursery() as nursery,
    ):
        ids = [(id, f"relay-of-a-host-with-a-long-name-{id % 3}.plant.example-77aa") for id in range(128, 256)]
        endpoint.relay.remote = FakeRemote(replace(REALM, elsewhere=ids, lost=3))
        page = await show(browser, endpoint)
        await a.send_all(b"Z." * 5)
        nursery.start_soon(f.send_all, b"S." * 200_000)
        await page.until("!document.querySelector('#waits').hidden && document.querySelector('#drops li')")
        await page.until("document.querySelector('#pairs li')")
        yield page
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_fault(browser: Browser, scheme: str) -> None:
    async with busy_page(browser) as page:
        await page.evaluate(_axe())
        for width, height in (DESKTOP, PHONE):
            await page.look_like(width, height, scheme=scheme, phone=width < 500)
            assert await _faults(page) == []
        await page.evaluate("document.querySelector('td button').click()")
        await page.until("document.querySelector('#close-dialog').open")
        assert await _faults(page) == []
        await page.evaluate(
            "document.querySelector('#close-dialog').close(), document.querySelector('#token-dialog').showModal()"
        )
        assert await _faults(page) == []
        assert page.errors == []


def _axe() -> str:
    spec = find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core-python is needed, of the test extra")
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8") + "; undefined"


async def _faults(page: Page) -> list[tuple[str, list[str]]]:
    found = await page.evaluate("axe.run().then(result => result.violations)")
    return [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found]


async def test_on_a_phone_the_id_stands_beside_the_rest(browser: Browser, endpoint: Endpoint) -> None:
    async with endpoint.client(" "):
        page = await show(browser, endpoint)
        await page.until(row("0x20"))
        for width, height in (PHONE, SMALL_PHONE):
            await page.look_like(width, height, phone=True)
            edges = (
                "[row.querySelector('.id').getBoundingClientRect().right, row.cells[1].getBoundingClientRect().left]"
            )
            right, left = await page.evaluate(f"(row => {edges})({row('0x20')})")
            assert right < left


async def test_nothing_is_wider_than_a_phone(browser: Browser) -> None:
    async with busy_page(browser) as page:
        for width, height in (PHONE, SMALL_PHONE):
            await page.look_like(width, height, phone=True)
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            buttons = "[...document.querySelectorAll('button')].filter(button => button.checkVisibility())"
            sizes = await page.evaluate(f"{buttons}.map(button => button.getBoundingClientRect().height)")
            assert sizes
            assert min(sizes) >= 44
