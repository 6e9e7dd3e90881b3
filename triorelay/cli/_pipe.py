"""`triorelay pipe`: standard input to a peer, and what the peer sends to standard output."""

import os
import socket
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..protocol import EventCode, id_byte, id_name, id_text
from ._client import discarding, read_standard_input, say_who
from ._client_options import Way, client_options
from ._completion import complete_peer
from ._options import ID
from ._run import run

if TYPE_CHECKING:
    import trio

    from ..client import Client


@click.command()
@click.argument("peer", type=ID, shell_complete=complete_peer)
@click.option("--raw", is_flag=True, help="Bytes as they are, for a peer that knows no streams; ends when it leaves.")
@client_options
def pipe(way: Way, peer: int, raw: bool) -> None:
    """Connect standard input and output with PEER, which does the same; wait for it first.

    The end of input is carried across in both directions, and nothing is lost unnoticed.

    \b
    Examples:
      triorelay pipe --id A B < file           # on one host
      triorelay pipe --id B A > file           # on another
    """

    async def work() -> None:
        async with way.open(strict=not raw) as client:
            say_who(way, client, f"waiting for {id_name(peer)}")
            if raw:
                await _pipe_raw(client, peer)
            else:
                # A stream that is opened before would end with an earlier session of the peer.
                await client.wait_for(peer)
                async with discarding(client), client.stream(peer) as stream:
                    await _pipe_stream(stream)

    run(work)


async def _pipe_stream(stream: "trio.abc.HalfCloseableStream") -> None:
    import trio

    async def up() -> None:
        async for chunk in read_standard_input():
            await stream.send_all(chunk)
        await stream.send_eof()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(up)
            while chunk := await stream.receive_some():
                await _write(chunk)
            _end_output()
    except* trio.BrokenResourceError:
        raise click.ClickException("the stream broke: the peer left before its end, or bytes were lost") from None


async def _pipe_raw(client: "Client", peer: int) -> None:
    import trio

    events = client.events()
    # Not by wait_for(): who comes and goes in the same instant is never there when this task looks.
    if id_text(peer) not in {client.id, *client.peers}:
        async for event in events:
            if event.code == EventCode.JOINED and event.argument == peer:
                break
    receiving = trio.CancelScope()
    left = False

    async def up() -> None:
        async for chunk in read_standard_input():
            await client.send(peer, chunk)

    async def until_it_leaves() -> None:
        nonlocal left
        async for event in events:
            if event.code == EventCode.LEFT and event.argument == peer:
                left = True
                receiving.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(up)
        nursery.start_soon(until_it_leaves)
        while not left:
            with trio.CancelScope() as receiving:
                arrived = await client.receive()
            if not receiving.cancelled_caught:
                await _write_from(peer, arrived)
        # What it sent arrived before the news that it left.
        with suppress(trio.WouldBlock):
            while True:
                await _write_from(peer, client.receive_nowait())
        nursery.cancel_scope.cancel()


async def _write_from(peer: int, arrived: tuple[str, bytes]) -> None:
    source, data = arrived
    if id_byte(source) == peer:
        await _write(data)


async def _write(data: bytes | bytearray) -> None:
    """Write to standard output, in a thread: whoever reads it slowly must not hold up the other direction."""
    import trio

    await trio.to_thread.run_sync(_write_all, data, abandon_on_cancel=True)


def _write_all(data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


def _end_output() -> None:
    """Let whoever reads standard output see its end, while the other direction may go on."""
    output = sys.stdout.fileno()
    if stat.S_ISSOCK(os.fstat(output).st_mode):
        # The same socket may be standard input too.
        with socket.socket(fileno=os.dup(output)) as sock, suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
