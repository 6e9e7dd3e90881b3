"""When a relay answers at the place for successors, and that it imports what the answer takes only then."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
import trio.testing

from tests.wire.client import PATIENCE
from triorelay.admin import Admin, AdminConfig
from triorelay.handover import Handover
from triorelay.handover._conversation import Greeting, encode
from triorelay.relay import Config, Relay, Service, UnixAddress, serve

if TYPE_CHECKING:
    from pathlib import Path

OTHER_VERSION = encode(Greeting([99], "0.0.0"))


class Asking:
    """A service that starts last, asks what listens by then, and starts once every other task has nothing to do."""

    def __init__(self, *questions: tuple[Path, bytes]) -> None:
        self._questions = questions
        self.connections: list[socket.socket] = []

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        for path, question in self._questions:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            connection.sendall(question)
            connection.setblocking(False)
            self.connections.append(connection)
        await trio.testing.wait_all_tasks_blocked(0.05)
        task_status.started()
        await trio.sleep_forever()

    async def answer(self, connection: socket.socket) -> bytes:
        await trio.lowlevel.wait_readable(connection)
        return connection.recv(65536)


def gone(sessions: int, frames: int) -> NoReturn:
    raise AssertionError(f"handed over {sessions} sessions and {frames} frames")


async def test_a_relay_that_finds_no_msgspec_any_more_continues_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "s.handover"
    config = Config(unix=(str(tmp_path / "s"),))
    monkeypatch.setitem(sys.modules, "msgspec", None)  # as if its files were removed
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            services = [Handover(str(place), gone=gone)]
            relay = await nursery.start(lambda task_status: serve(config, services=services, task_status=task_status))
            for _ in range(2):
                async with await trio.open_unix_socket(str(place)) as successor:
                    await successor.send_all(OTHER_VERSION)
                    assert await successor.receive_some() == b""
            assert not relay.draining
            nursery.cancel_scope.cancel()
    failures = [record for record in caplog.records if record.message == "handover failed, this relay continues"]
    assert ["msgspec" in str(vars(record)["fields"]["reason"]) for record in failures] == [True, True]
    assert all(record.exc_info is None for record in caplog.records)


async def test_admin_endpoint_and_handover_wait_until_the_relay_is_in_charge(tmp_path: Path) -> None:
    admin, handover = tmp_path / "s.admin", tmp_path / "s.handover"
    asking = Asking((admin, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"), (handover, OTHER_VERSION))

    def begin(relay: Relay) -> None:
        for connection in asking.connections:
            with pytest.raises(BlockingIOError):
                connection.recv(1)

    services: list[Service] = [
        Admin(AdminConfig(address=UnixAddress(str(admin)))),
        Handover(str(handover), gone=gone),
        asking,
    ]
    config = Config(unix=(str(tmp_path / "s"),))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: serve(config, services=services, begin=begin, task_status=task_status)
            )
            answers = [await asking.answer(connection) for connection in asking.connections]
            nursery.cancel_scope.cancel()
    assert answers[0].startswith(b"HTTP/1.1 200 ")
    assert b"reads states of version" in answers[1]
    for connection in asking.connections:
        connection.close()
