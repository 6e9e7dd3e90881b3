"""`/monitor`: the frames themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from triorelay.admin._monitor import QUEUE_BYTES, _Viewer

if TYPE_CHECKING:
    from tests.admin.endpoint import Connection, Endpoint


async def look(monitor: Connection) -> dict[str, object]:
    seen: dict[str, object] = json.loads(await monitor.line())
    return seen


async def test_frames_appear_as_lines_with_time_source_destination_and_data(endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a, endpoint.client("B") as b, endpoint.follow("/monitor") as monitor:
        await a.send_all(b"B1B\xff")
        seen = await look(monitor)
        assert isinstance(seen.pop("time"), float)
        assert seen == {"source": 65, "destination": 66, "data": "31ff"}
        assert await b.receive_some() == b"A1A\xff"


async def test_frames_that_no_client_gets_appear_too(endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a, endpoint.follow("/monitor") as monitor:
        await a.send_all(b"Z1")
        assert (await look(monitor))["destination"] == ord("Z")


async def test_only_what_was_asked_for_appears(endpoint: Endpoint) -> None:
    async with (
        endpoint.client("A") as a,
        endpoint.client("+") as plus,
        endpoint.follow("/monitor?from=+") as from_plus,
        endpoint.follow("/monitor?to=0x43") as to_c,
        endpoint.follow("/monitor?from=A&to=B") as from_a_to_b,
    ):
        await a.send_all(b"C1B2")
        await plus.send_all(b"B3")
        assert (await look(from_plus))["data"] == "33"
        assert (await look(to_c))["data"] == "31"
        assert (await look(from_a_to_b))["data"] == "32"


async def test_the_tap_is_there_only_with_a_viewer(endpoint: Endpoint) -> None:
    assert endpoint.relay.router.tap is None
    async with endpoint.client("A") as a, endpoint.follow("/monitor") as first:
        async with endpoint.follow("/monitor") as second:
            await a.send_all(b"Z1")
            assert (await look(second))["data"] == "31"
        await a.send_all(b"Z2")
        assert [(await look(first))["data"] for _ in range(2)] == ["31", "32"]
        assert endpoint.relay.router.tap is not None
    while endpoint.relay.router.tap is not None:
        await endpoint.fetch("/healthz")


async def test_a_flood_is_relayed_whole_although_not_all_of_it_is_shown(endpoint: Endpoint) -> None:
    frames = 400_000
    async with endpoint.client("A") as a, endpoint.follow("/monitor") as monitor:
        await a.send_all(b"Z." * frames)
        seen = 0
        while seen < frames:
            line = await look(monitor)
            skipped = line.get("skipped", 0)
            assert isinstance(skipped, int)
            seen += len(bytes.fromhex(str(line.get("data", "")))) + skipped
        assert seen == frames


def lines_of(viewer: _Viewer) -> list[dict[str, object]]:
    return [json.loads(line) for line in viewer.take().splitlines()]


async def test_what_does_not_fit_is_counted_and_said_in_its_place() -> None:
    viewer = _Viewer(None, None)
    for _ in range(3):
        viewer.see(1, 2, b"\1x" * (QUEUE_BYTES // 2))
    first, second, last = lines_of(viewer)
    assert len(str(first["data"])) == QUEUE_BYTES
    shown = (len(str(first["data"])) + len(str(second["data"]))) // 2
    assert last["skipped"] == 3 * (QUEUE_BYTES // 2) - shown
    viewer.see(1, 2, b"\1y")
    assert [line["data"] for line in lines_of(viewer)] == ["79"]


async def test_frames_skipped_before_a_line_are_counted_in_it() -> None:
    viewer = _Viewer(None, None)
    for _ in range(2000):
        viewer.see(1, 2, b"\1x")
    shown, skipped = 0, 0
    while not skipped:
        lines = lines_of(viewer)
        shown += sum("data" in line for line in lines)
        viewer.see(1, 2, b"\1z")
        skipped = sum(int(str(line.get("skipped", 0))) for line in lines)
    assert shown + skipped >= 2000


async def test_a_piece_that_grows_in_its_outbox_is_shown_as_it_was() -> None:
    viewer = _Viewer(None, None)
    piece = bytearray(b"\1x")
    viewer.see(1, 2, piece)
    piece += b"\1y"
    assert lines_of(viewer)[0]["data"] == "78"
