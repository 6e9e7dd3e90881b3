"""The commands that make and serve calls: call, answer."""

import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Final

import click
import trio

from ..client import CallFailed, Calls
from ..protocol import FailReason, id_name
from ._client import WAIT, explaining_no_route, read_standard_input, report_id, wait_joined
from ._client_options import RelayOptions, client_options, complete_peer
from ._frame_view import decoded
from ._log_writer import LAST_SECONDS, STANDARD_ERROR, write_all
from ._options import ID, Seconds, run

WAITING: Final = 32
"""Pieces of the commands' standard error that wait to be written: as many as calls are answered at once by default."""
PIECE: Final = 1 << 16
"""The last bytes that are kept of what one command writes there: about 2 MB wait at the most."""


@click.command()
@click.argument("destination", type=ID, shell_complete=complete_peer)
@click.argument("text")
@click.option("--timeout", type=Seconds(min=0), metavar="SECONDS", help="Give up after so long. Default: never.")
@WAIT
@client_options
def call(options: RelayOptions, destination: int, text: str, timeout: float | None, wait: float | None) -> None:
    """Call DESTINATION with TEXT and print its reply; TEXT - is standard input.

    The other end is `triorelay answer`, or any program that serves calls. Text that does not end with a newline gets
    one. Ends with 1 and one line if the call failed.

    \b
    Examples:
      triorelay call B 21
      triorelay call B - --timeout 5 < question
    """

    async def work() -> bytes:
        async with options.open() as client, client.calls() as calls:
            payload = await _payload(text, calls)
            await wait_joined(client, destination, wait)
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                return await calls.call(destination, payload)
        raise click.ClickException(f"{id_name(destination)} did not answer within {timeout:g} s")

    with explaining_no_route(destination, wait):
        reply = run(work)
    shown = decoded(reply)
    click.echo(reply, nl=bool(shown and shown.isprintable()))


async def _payload(text: str, calls: Calls) -> bytes:
    if text != "-":
        return os.fsencode(text)
    payload = bytearray()
    async for chunk in read_standard_input():
        payload += chunk
        if len(payload) > calls.limit:
            raise click.ClickException(f"a call has at most {calls.limit} bytes, and standard input has more")
    return bytes(payload)


@click.command()
@click.option(
    "--exec",
    "command",
    metavar="COMMAND",
    help="The shell command that answers: a call's payload is its standard input, its standard output the reply. "
    "Default: the reply is the payload.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Answer so many calls at a time; further ones are refused.",
)
@click.option("--reconnect", is_flag=True, help="Reconnect after a loss of the relay.")
@client_options
def answer(options: RelayOptions, command: str | None, at_once: int, reconnect: bool) -> None:
    """Answer calls until Ctrl-C.

    COMMAND finds the caller's id in the variable TRIORELAY_CALLER. If its exit status is not 0, the call fails with the
    last line of its standard error. When the caller cancels the call or leaves, the command is killed.

    \b
    Examples:
      triorelay answer --id B --exec 'jq .left'
      triorelay answer --id B --exec ./lookup --at-once 4 --reconnect
    """
    errors = StandardError()

    async def work() -> None:
        async with options.open(reconnect=reconnect) as client, client.calls() as calls:
            report_id(options, client, "answering")

            async def handler(source: str, payload: bytes) -> bytes:
                return payload if command is None else await _output_of(command, source, payload, calls.limit, errors)

            await calls.serve(handler, at_once=at_once)

    try:
        run(work)
    finally:
        errors.finish()


class StandardError:
    """Where the commands' standard error goes. A thread writes it: calls are answered although nothing reads it."""

    def __init__(self) -> None:
        self._pieces: Final[queue.Queue[bytes | None]] = queue.Queue(WAITING)
        self._thread: Final = threading.Thread(target=self._write_forever, daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Have it written, if there is room."""
        with suppress(queue.Full):
            self._pieces.put_nowait(data[-PIECE:])

    def finish(self) -> None:
        """Write what waits, within `LAST_SECONDS`."""
        with suppress(queue.Full):
            self._pieces.put(None, timeout=LAST_SECONDS)
            self._thread.join(LAST_SECONDS)

    def _write_forever(self) -> None:
        while (data := self._pieces.get()) is not None:
            with suppress(OSError):
                write_all(STANDARD_ERROR, data)


async def _output_of(command: str, caller: str, payload: bytes, limit: int, errors: StandardError) -> bytes:
    """Run a shell command and return its output; fail the call if it fails."""
    try:
        done = await trio.run_process(
            ["sh", "-c", command],
            stdin=payload,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            start_new_session=True,
            env={**os.environ, "TRIORELAY_CALLER": id_name(ord(caller))},
            deliver_cancel=_end_group,
        )
    except OSError as error:
        raise CallFailed(FailReason.FAILED, f"cannot run a command: {error.strerror}") from None
    errors.put(done.stderr)
    if done.returncode:
        raise CallFailed(FailReason.FAILED, _last_line(done))
    if len(done.stdout) > limit:
        raise CallFailed(FailReason.FAILED, f"the command wrote {len(done.stdout)} bytes, and a reply has {limit}")
    return done.stdout


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2].strip() or (
        f"the command ended with status {done.returncode}"
        if done.returncode > 0
        else f"the command was ended by {signal.Signals(-done.returncode).name}"
    )


async def _end_group(process: trio.Process) -> None:
    """Kill the command and its children: it is the leader of its own session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
