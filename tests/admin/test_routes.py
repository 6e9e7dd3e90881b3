"""What each path gives, and what it refuses."""

from __future__ import annotations

import json
import logging
import re
import subprocess

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.endpoint import Endpoint, FakeRemote, open_endpoint
from triorelay import __version__
from triorelay._build import BUILD
from triorelay.admin._messages import to_json
from triorelay.relay import Config, RealmStatus, UnixAddress

CLIENT_KEYS = {
    *("id", "name", "transport", "address", "principal", "pid", "process", "connected_seconds", "sent", "received"),
    *("queued", "events", "waiting_for", "waiting_seconds", "shared"),
}
LEDGER_KEYS = {"accepted", "copied", "written", "queued", "control", "partial", "forwarded", "imported", "dropped"}


async def test_a_running_relay_is_alive_and_ready(endpoint: Endpoint) -> None:
    assert (await endpoint.fetch("/healthz")).status == 200
    assert (await endpoint.fetch("/readyz")).status == 200


async def test_a_draining_relay_is_alive_and_not_ready() -> None:
    async with open_endpoint() as endpoint, endpoint.client("A"):
        endpoint.relay.drain()
        assert (await endpoint.fetch("/healthz")).status == 200
        refused = await endpoint.fetch("/readyz")
        assert (refused.status, refused.json()) == (503, {"error": "draining"})
        assert (await endpoint.fetch("/status")).json()["draining"] is True


async def test_the_status_has_the_keys_that_the_interface_names(endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a, endpoint.client("B") as b:
        await a.send_all(b"B1B2Z3")
        assert await b.receive_some(4) == b"A1A2"
        status = (await endpoint.fetch("/status")).json()
    expected = {"version", "build", "uptime_seconds", "draining", "listeners", "clients", "pairs", "drops", "ledger"}
    assert expected <= set(status)
    assert status["build"] == BUILD
    assert [set(client) for client in status["clients"]] == [CLIENT_KEYS, CLIENT_KEYS]
    assert set(status["ledger"]) == LEDGER_KEYS
    assert status["pairs"] == [[65, 66, 2]]
    assert status["drops"] == [[65, 90, "no_route", 1]]
    assert status["ledger"]["dropped"] == {"no_route": 1}


async def test_counters_belong_to_ids_and_outlive_reconnects(endpoint: Endpoint) -> None:
    for _ in range(2):
        async with endpoint.follow("/events") as events:
            await events.event_named("status")
            async with endpoint.client("A") as a:
                await a.send_all(b"Z1")
                await events.event_named("joined")
            await events.event_named("left")
    async with endpoint.client("A"):
        status = (await endpoint.fetch("/status")).json()
    assert status["clients"][0]["sent"] == 2


async def test_the_metrics_have_the_names_that_the_interface_names(endpoint: Endpoint) -> None:
    async with endpoint.client("A") as a, endpoint.client("B") as b:
        await a.send_all(b"B1Z2")
        await b.receive_some(2)
        text = (await endpoint.fetch("/metrics")).body.decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["triorelay_clients",] == 2
    assert samples["triorelay_frames_accepted_total",] == 2
    assert samples["triorelay_frames_copied_total",] == 0
    assert samples["triorelay_frames_written_total",] == 1
    assert samples["triorelay_frames_queued",] == 0
    assert samples["triorelay_frames_dropped_total", "no_route"] == 1
    assert samples["triorelay_frames_dropped_total", "queue_full"] == 0
    assert samples["triorelay_client_frames_total", "A", "sent"] == 2
    assert samples["triorelay_client_frames_total", "B", "received"] == 1
    assert samples["triorelay_client_waiting_seconds_total", "A"] == 0
    assert samples["triorelay_build_info", __version__, BUILD] == 1
    names = {name for name, *_ in samples}
    assert {"process_open_fds", "process_resident_memory_bytes"} <= names


async def test_ended_sessions_are_counted_by_transport_and_outcome(endpoint: Endpoint) -> None:
    async with endpoint.follow("/events") as events:
        await events.event_named("status")
        async with endpoint.client("A"):
            await events.event_named("joined")
        await events.event_named("left")
    text = (await endpoint.fetch("/metrics")).body.decode()
    assert 'triorelay_sessions_total{outcome="left",transport="memory"} 1.0' in text


async def test_every_way_to_end_is_at_zero_before_the_first_session_ends(endpoint: Endpoint) -> None:
    text = (await endpoint.fetch("/metrics")).body.decode()
    ended = dict(re.findall(r'triorelay_sessions_total\{outcome="(\w+)",transport="memory"\} (\S+)', text))
    assert {"left", "slow_consumer", "draining", "bad_hello", "authentication", "address", "no_hello"} <= set(ended)
    assert "welcome" not in ended
    assert set(ended.values()) == {"0.0"}


@pytest.mark.needs("promtool")
async def test_prometheus_finds_nothing_to_complain_about(endpoint: Endpoint) -> None:
    async with endpoint.client("A"):
        text = (await endpoint.fetch("/metrics")).body
    result = await trio.run_process(
        ["promtool", "check", "metrics"], stdin=text, capture_stdout=True, capture_stderr=True, check=False
    )
    assert isinstance(result, subprocess.CompletedProcess)
    complaints = [line for line in result.stderr.decode().splitlines() if "triorelay" in line]
    assert complaints == []


async def test_the_metrics_of_a_realm_are_there_where_the_relay_is_part_of_one(endpoint: Endpoint) -> None:
    assert "triorelay_realm" not in (await endpoint.fetch("/metrics")).body.decode()
    endpoint.relay.ledger.forwarded, endpoint.relay.ledger.imported = 5, 6
    endpoint.relay.remote = FakeRemote(
        RealmStatus(
            realm="plant",
            relay="hall",
            up=True,
            elsewhere=[(66, "gate"), (66, "yard"), (67, "yard")],
            shared=[],  # the first is shared
            lost=7,
            garbage=8,
            reconnects=9,
            confirmed_seconds=1.5,
        )
    )
    lines = (await endpoint.fetch("/metrics")).body.decode().splitlines()
    assert {line for line in lines if line.startswith("triorelay_realm")} == {
        "triorelay_realm_up 1.0",
        "triorelay_realm_ids_elsewhere 2.0",
        "triorelay_realm_confirmed_age_seconds 1.5",
        "triorelay_realm_frames_forwarded_total 5.0",
        "triorelay_realm_frames_imported_total 6.0",
        "triorelay_realm_frames_lost_total 7.0",
        "triorelay_realm_garbage_total 8.0",
        "triorelay_realm_reconnects_total 9.0",
    }


async def test_a_relay_that_can_grant_no_id_is_not_ready(endpoint: Endpoint) -> None:
    realm = RealmStatus(
        realm="r", relay="a", up=False, elsewhere=[], shared=[], lost=0, garbage=0, reconnects=0, confirmed_seconds=None
    )
    endpoint.relay.remote = remote = FakeRemote(realm, away="away from the realm r: Connection refused")
    answer = await endpoint.fetch("/readyz")
    assert answer.status == 503
    assert b"away from the realm r: Connection refused" in answer.body
    remote.away = ""
    assert (await endpoint.fetch("/readyz")).status == 200


async def test_which_client_waits_for_which_is_in_the_status_and_the_metrics() -> None:
    async with (
        open_endpoint(config=Config(queue_bytes=2, stall_timeout=0)) as endpoint,
        endpoint.client("A") as a,
        endpoint.client("S") as s,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.send_all, b"S." * 200_000)
        while not (waiting := [client for client in await _clients(endpoint) if client["waiting_for"]]):
            pass
        assert [(client["name"], client["waiting_for"]) for client in waiting] == [("A", ord("S"))]
        assert await _waited(endpoint, "A") > 0
        received = 0
        while received < 400_000:
            received += len(await s.receive_some(65536))
        while any(client["waiting_for"] for client in await _clients(endpoint)):
            pass
        assert await _waited(endpoint, "A") == await _waited(endpoint, "A") > 0


async def _clients(endpoint: Endpoint) -> list[dict[str, object]]:
    clients: list[dict[str, object]] = (await endpoint.fetch("/status")).json()["clients"]
    return clients


async def _waited(endpoint: Endpoint, name: str) -> float:
    text = (await endpoint.fetch("/metrics")).body.decode()
    prefix = f'triorelay_client_waiting_seconds_total{{client="{name}"}} '
    return float(next(line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)))


@pytest.mark.parametrize(
    ("id", "typed"), [("A", "A"), ("A", "%41"), ("A", "0x41"), ("/", "%2F"), ("\x01", "0x01"), (" ", "%20"), ("+", "+")]
)
async def test_close_ends_the_session_of_the_id_as_typed(endpoint: Endpoint, id: str, typed: str) -> None:
    async with endpoint.client(id) as client:
        got = await endpoint.post(f"/clients/{typed}/close")
        assert (got.status, got.json()["id"]) == (200, ord(id))
        assert await client.receive_some(1) == b""


@pytest.mark.parametrize(("typed", "status"), [("B", 404), ("0x00", 400), ("AB", 400), ("", 400), ("%FF", 400)])
async def test_closing_an_absent_id_is_an_error(endpoint: Endpoint, typed: str, status: int) -> None:
    got = await endpoint.post(f"/clients/{typed}/close")
    assert (got.status, list(got.json())) == (status, ["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/clients/A", 404),
        ("GET", "/status/", 404),
        ("GET", "//status", 404),
        ("POST", "/status", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "*", 405),
        ("OPTIONS", "/clients/A/close", 405),
        ("GET", "/clients/A/close", 405),
        ("BREW", "/healthz", 405),
        ("GET", "/monitor?from=AB", 400),
        ("GET", "/monitor?to=", 400),
    ],
)
async def test_unknown_paths_and_methods_get_an_error_and_no_log_line(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, method: str, path: str, status: int
) -> None:
    caplog.clear()
    got = await endpoint.fetch(path, method=method)
    assert (got.status, list(got.json())) == (status, ["error"])
    assert ("allow" in got.headers) == (status == 405)
    assert caplog.records == []


async def test_an_absolute_target_is_understood(endpoint: Endpoint) -> None:
    assert (await endpoint.fetch("http://localhost/healthz")).status == 200


async def test_head_gives_the_head_alone(endpoint: Endpoint) -> None:
    got = await endpoint.fetch("/status", method="HEAD")
    assert (got.status, got.body) == (200, b"")
    assert int(got.headers["content-length"]) > 0
    assert (await endpoint.fetch("/events", method="HEAD")).body == b""


async def test_a_path_that_is_no_text_is_shown_in_text() -> None:
    async with open_endpoint() as endpoint:
        endpoint.relay.addresses = ["unix:/tmp/\udcff\xe9"]
        assert (await endpoint.fetch("/status")).json()["listeners"] == ["unix:/tmp/\\xff\xe9"]


def test_what_is_no_text_makes_valid_json_all_the_same() -> None:
    assert json.loads(to_json({"name": "\udcff"})) == {"name": "\udcff"}


async def test_a_bug_is_one_error_and_one_traceback(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(endpoint.relay, "snapshot", fail)
    got = await endpoint.fetch("/status")
    assert (got.status, list(got.json())) == (500, ["error"])
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
    for _ in range(20):
        assert (await endpoint.fetch("/status")).status == 500
    assert len([record for record in caplog.records if record.exc_info]) < 10
    assert (await endpoint.fetch("/healthz")).status == 200


async def test_the_unix_endpoint_is_for_its_owner_alone(tmp_path: object) -> None:
    path = f"{tmp_path}/s.admin"
    async with open_endpoint(UnixAddress(path)) as endpoint:
        assert (await trio.Path(path).stat()).st_mode & 0o777 == 0o600
        # No web page can be there, so neither Host nor the header counts.
        assert (await endpoint.fetch("/status", ("Host", "anything.example"))).status == 200
        assert (await endpoint.fetch("/clients/A/close", method="POST")).status == 404
