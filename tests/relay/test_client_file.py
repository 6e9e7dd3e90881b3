"""Which files of clients the relay removes when their sessions end, and which it leaves alone."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from tests.watchdog import PATIENCE
from triorelay.relay._client_file import THREADS, remove_client_file
from triorelay.relay._connection import Peer

if TYPE_CHECKING:
    from pathlib import Path


def bound(path: Path) -> Path:
    """Leave a socket file."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return path


async def remove(peer: Peer, listening: list[str]) -> None:
    await remove_client_file(peer, listening, trio.CapacityLimiter(THREADS))


def client(address: str, *, uid: int | None = None) -> Peer:
    return Peer("unix", address, None, ord("A"), uid=os.getuid() if uid is None else uid)


@pytest.mark.parametrize("absolute", [True, False])
async def test_a_socket_beside_the_relays_own_is_removed(tmp_path: Path, absolute: bool) -> None:
    path = bound(tmp_path / "A")
    await remove(client(str(path) if absolute else "A"), [str(tmp_path / "server_socket")])
    # The end of the session waits a second at most for the thread that removes it.
    with trio.fail_after(PATIENCE):
        while path.exists():  # noqa: ASYNC110 - no event tells that it is gone
            await trio.sleep(0.01)


async def test_nothing_is_removed_in_another_directory(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "relay").mkdir()
    path = bound(tmp_path / "other" / "A")
    for address in (str(path), "../other/A", f"{tmp_path}/relay/../other/A"):
        await remove(client(address), [str(tmp_path / "relay" / "server_socket")])
    assert path.exists()


async def test_nothing_of_another_user_is_removed(tmp_path: Path) -> None:
    path = bound(tmp_path / "A")
    await remove(client("A", uid=os.getuid() + 1), [str(tmp_path / "server_socket")])
    assert path.exists()


async def test_nothing_but_sockets_is_removed(tmp_path: Path) -> None:
    (tmp_path / "A").write_text("data")
    target = bound(tmp_path / "target")
    (tmp_path / "B").symlink_to(target)
    for name in ("A", "B"):
        await remove(client(name), [str(tmp_path / "server_socket")])
    assert (tmp_path / "A").exists()
    assert (tmp_path / "B").is_symlink()
    assert target.exists()


async def test_the_relays_own_socket_is_not_removed(tmp_path: Path) -> None:
    path = bound(tmp_path / "A")
    await remove(client("A"), [str(path)])
    assert path.exists()


async def test_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    await remove(client("A"), [str(tmp_path / "server_socket")])
    await remove(client("A"), [str(tmp_path / "gone" / "server_socket")])
