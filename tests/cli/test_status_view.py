"""How a status looks in a terminal."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest
from rich.console import Console, Group

from triorelay.cli import _status_view as view
from triorelay.cli._options import SORT_KEYS
from triorelay.cli._status import Change, Status

CLIENT: dict[str, Any] = {
    "id": 65,
    "name": "A",
    "transport": "unix",
    "address": "/run/A",
    "principal": "uid:1000",
    "pid": 7,
    "process": "planner",
    "connected_seconds": 65,
    "sent": 10,
    "received": 20,
    "queued": 0,
    "events": False,
    "waiting_for": None,
    "waiting_seconds": 0,
}


def test_there_is_an_order_for_each_key_of_top() -> None:
    assert list(view.SORTS) == list(SORT_KEYS.values())


def status(
    *clients: dict[str, Any],
    uptime: float = 10,
    cluster: dict[str, Any] | None = None,
    drops: list[list[object]] | None = None,
    **ledger: Any,
) -> Status:
    counts = {"accepted": 0, "written": 0, "queued": 0, "dropped": {}} | ledger
    whole = {
        "version": "1",
        "uptime_seconds": uptime,
        "draining": False,
        "listeners": ["unix:/run/s"],
        "clients": [CLIENT | client for client in clients],
        "pairs": [],
        "drops": drops or [],
        "ledger": counts,
        "of_a_newer_version": 1,
        **({"cluster": cluster} if cluster else {}),
    }
    return msgspec.json.decode(json.dumps(whole), type=Status)


def shown(part: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False)
    console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.25, "0.2"),
        (3, "3"),
        (9.97, "10"),
        (12345.6, "12,346"),
        (1.5e6, "1.5M"),
        (2e9, "2.0G"),
        (3e12, "3.0T"),
    ],
)
def test_counts_are_short(number: float, text: str) -> None:
    assert view.count_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3700, "1 h 1 min"), (90000, "1 d 1 h")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert view.duration_text(seconds) == text


def test_what_a_client_chose_is_shown_in_printable_ascii_and_is_no_markup() -> None:
    text = shown(view.clients(status({"address": "/run/\x1b[2J\n[bold]é", "process": "[red]", "principal": "p\x07"})))
    assert "\\x1b[2J\\n[bold]\\xe9" in text
    assert "[red] (7)" in text
    assert "p\\x07" in text
    assert len(text.splitlines()) == 2


def test_a_narrow_terminal_shortens_addresses_and_no_numbers() -> None:
    line = shown(view.clients(status({"address": "/a/very/long/path" * 4, "sent": 123456})), width=70).splitlines()[1]
    assert "…" in line
    assert "123,456" in line
    assert "1 min 5 s" in line


@pytest.mark.parametrize(
    ("sort", "order"), [("id", "ABC"), ("sent", "CAB"), ("received", "ABC"), ("queue", "BAC"), ("waiting", "CAB")]
)
def test_clients_are_sorted(sort: str, order: str) -> None:
    before = status({"sent": 0}, {"id": 66, "name": "B"}, {"id": 67, "name": "C"}, uptime=9)
    after = status(
        {"sent": 5},
        {"id": 66, "name": "B", "queued": 3},
        {"id": 67, "name": "C", "sent": 90, "waiting_for": 66, "waiting_seconds": 1},
    )
    lines = shown(view.clients(after, Change(before, after), sort=sort)).splitlines()[1:]
    assert "".join(line[0] for line in lines) == order


def test_clients_that_have_no_room_are_counted() -> None:
    text = shown(view.clients(status(*({"id": id, "name": chr(id)} for id in range(65, 75))), most=3))
    assert "and 7 more" in text
    assert len(text.splitlines()) == 5


def test_waiting_clients_are_shown_longest_first() -> None:
    waiting = (
        {"id": 66, "name": "B", "waiting_for": 1, "waiting_seconds": 2},
        {"waiting_for": 66, "waiting_seconds": 70},
    )
    first, second = shown(view.waits(status(*waiting))).splitlines()
    assert first.startswith(" A waits for B ")
    assert first.endswith(", 1 min 10 s")
    assert second.startswith(" B waits for 0x01 ")


@pytest.mark.parametrize(
    ("drops", "text"),
    [
        ([[65, 66, "no_route", 1]], "A to B"),
        ([[65, 0, "no_route", 1]], "A to the relay"),
        ([[65, 66, "no_route", 1], [0, 67, "no_route", 2]], "observers to C and 1 more pairs"),
        ([[65, 66, "no_route", 1], [None, None, "no_route", 9]], "A to B and many more pairs"),
        ([[None, None, "no_route", 9]], "many pairs"),
        ([], ""),
    ],
)
def test_the_pair_that_lost_most_is_named(drops: list[list[object]], text: str) -> None:
    line = shown(view.drops(status(drops=drops, dropped={"no_route": 10})))
    assert line == f"dropped 10  no route  {text}\n"


def test_a_realm_is_shown_with_the_ids_of_each_relay() -> None:
    assert not view.realm(status())
    cluster = {"realm": "plant", "relay": "hall-1f", "up": True, "lost": 0, "garbage": 0, "of_a_newer_version": 1}
    elsewhere = [[66, "yard-77"], [67, "gate\x1b[2J"], [200, "yard-77"]]
    assert shown(view.realm(status(cluster=cluster | {"elsewhere": elsewhere}))).splitlines() == [
        "realm plant  as hall-1f",
        "  gate\\x1b[2J  C",
        "  yard-77  B 0xc8",
    ]
    away = cluster | {"elsewhere": [[id, "far"] for id in range(128, 256)], "up": False, "lost": 1500, "garbage": 2}
    head, far = shown(Group(view.realm(status(cluster=away))), width=100).splitlines()
    assert head == "realm plant  as hall-1f  cannot be reached  1,500 frames lost  2 messages not understood"
    assert far.startswith("  far  0x80 0x81 ")
    assert far.endswith("…")


def test_rates_are_those_between_two_statuses_of_one_run() -> None:
    before = status({"sent": 10}, uptime=8, accepted=100)
    after = status({"sent": 30}, uptime=10, accepted=500)
    change = Change(before, after)
    assert (change.accepted, change.sent(after.clients[0])) == (200, 10)
    restarted = Change(after, before)
    assert (restarted.accepted, restarted.sent(before.clients[0])) == (0, 0)


def test_the_history_is_a_line_of_blocks() -> None:
    assert view.history_line([], 3) == "   "
    assert view.history_line([0, 0], 3) == "   "
    assert view.history_line([0, 4, 8, 2], 3) == "▄█▂"


REALM: dict[str, Any] = {
    "realm": "plant",
    "relay": "hall",
    "up": True,
    "elsewhere": [[66, "yard"], [78, "yard"], [79, "gate"], [79, "yard"], [80, "yard"]],
    "shared": [[78, "yard", 3], [79, "gate", 1], [79, "yard", 2], [80, "yard", 1]],
    "lost": 0,
    "garbage": 0,
}
N: dict[str, Any] = {"id": 78, "name": "N", "shared": True}
A: dict[str, Any] = {"name": "A", "shared": True}


class TestShared:
    def test_how_many_share_an_id_and_at_which_other_relays(self) -> None:
        now = status(N, N, A, A, cluster=REALM)
        assert [now.sharing(id) for id in (65, 66, 78, 79, 80, 81)] == [
            "shared by 2",
            "",
            "shared by 2 here, 3 at yard",
            "shared by 1 at gate, 2 at yard",
            "",
            "",
        ]

    def test_the_table_counts_the_holders_of_all_relays(self) -> None:
        table = shown(view.clients(status(N, A, A, cluster=REALM)))
        assert "N (1 of 4)" in table
        assert table.count("A (1 of 2)") == 2
