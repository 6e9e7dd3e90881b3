"""Between the end of its start and the end of the old relay, a successor answers no one."""

from __future__ import annotations

import socket
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
