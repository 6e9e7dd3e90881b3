"""The article's programs among themselves: the yardstick for what its clients must get from the relay."""

from __future__ import annotations

from functools import partial
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def next_line(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        received = await stream.receive_some(1)
        assert received, f"ended after {line!r}"
        line += received
    return line


@pytest.mark.needs("gcc")
async def test_two_clients_exchange_1_and_2(compile_c: Callable[[str], Path], tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:

        async def start(program: str, *arguments: str) -> trio.Process:
            command = [str(compile_c(program)), *arguments]
            run = partial(trio.run_process, command, cwd=tmp_path, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            process = await nursery.start(run)
            assert isinstance(process, trio.Process)
            return process

        server = await start("article_server", "-v")
        assert await next_line(server.stdout) == b"listening on server_socket\n"
        clients = [await start("article_client", "A", "B", "1", "-"), await start("article_client", "B", "A", "2", "-")]
        for client in clients:
            assert await next_line(client.stderr) == b"connected\n"
        for client in clients:
            assert client.stdin is not None
            await client.stdin.send_all(b"\n")
        assert [await next_line(client.stdout) for client in clients] == [b"B2\n", b"A1\n"]
        nursery.cancel_scope.cancel()
