"""`triorelay pipe`: standard input to a peer, and the peer's data to standard output."""

import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import click
import trio

from ..client import Client
from ..protocol import id_byte, id_name
from ._client import discard, is_there, presence_changes, read_standard_input, report_id
from ._client_options import RelayOptions, beside, client_options, complete_peer
from ._log_writer import write_all
from ._options import ID, run


@click.command()
@click.argument("peer", type=ID, shell_complete=complete_peer)
@click.option("--raw", is_flag=True, help="Raw bytes, for a peer without streams; ends when it leaves.")
@client_options
def pipe(options: RelayOptions, peer: int, raw: bool) -> None:
    """Connect standard input and output with PEER, which does the same; wait for it first.

    The end of input is carried across in both directions, and nothing is lost unnoticed.

    \b
    Examples:
      triorelay pipe --id A B < file           # on one host
      triorelay pipe --id B A > file           # on another
    """

    async def work() -> None:
        async with options.open(strict=not raw) as client:
            report_id(options, client, f"waiting for {id_name(peer)}")
            if raw:
                await _pipe_raw(client, peer)
            else:
                async with beside(discard, client), _open_stream(client, peer) as stream:
                    await _pipe_stream(stream)

    run(work)


@asynccontextmanager
async def _open_stream(client: Client, peer: int) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """Open a stream to `peer` once it is connected; a stream that an earlier session of it broke is replaced."""
    while True:
        async with client.stream(peer) as stream:
            await client.wait_for(peer)
            try:
                await stream.wait_send_all_might_not_block()
            except trio.BrokenResourceError:
                continue
            yield stream
            return


async def _pipe_stream(stream: trio.abc.HalfCloseableStream) -> None:
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


async def _pipe_raw(client: Client, peer: int) -> None:
    came = trio.Event()
    receiving = trio.CancelScope()
    left = False

    async def up() -> None:
        await came.wait()
        async for chunk in read_standard_input():
            await client.send(peer, chunk)

    async def until_it_leaves() -> None:
        nonlocal left
        if is_there(client, peer):
            came.set()
        # Not with wait_for(): a client that joins and leaves at once is never present when this task looks.
        async for joined, id in presence_changes(client, set(map(id_byte, client.peers))):
            if id == peer:
                came.set()
                if not joined:
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
        # What it sent arrived before its LEFT.
        with suppress(trio.WouldBlock):
            while True:
                await _write_from(peer, client.receive_nowait())
        nursery.cancel_scope.cancel()


async def _write_from(peer: int, arrived: tuple[str, bytes]) -> None:
    source, data = arrived
    if id_byte(source) == peer:
        await _write(data)


async def _write(data: bytes | bytearray) -> None:
    """Write to standard output, in a thread: a slow reader must not block the other direction."""
    await trio.to_thread.run_sync(write_all, sys.stdout.fileno(), data, abandon_on_cancel=True)


def _end_output() -> None:
    """Close standard output for its reader, while the other direction may continue."""
    output = sys.stdout.fileno()
    if stat.S_ISSOCK(os.fstat(output).st_mode):
        # The same socket may be standard input too.
        with socket.socket(fileno=os.dup(output)) as sock, suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
