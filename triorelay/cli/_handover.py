"""The handover of a relay's process: the last line, the supervisor, and a successor that SIGUSR2 starts.

1. With `--take-over` this process first asks the running relay for its state. If none runs, it starts as usual.
2. When a successor serves, this process writes its last line and ends at once (`os._exit`): clean-up would reach
   clients of the successor.
3. SIGUSR2 runs the command line of this process once more, with `--take-over`, from the files on disk now. The relay
   continues until the new one takes over, and logs if the new one ends instead.
4. Under systemd the new process is a child of systemd from its start. The old process sends systemd the new process id,
   just before it ends (`NotifyAccess=all`).
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from ..handover import Handover, Succession
from ..protocol import UnixAddress
from ..relay import Config, Relay, Service, log
from ._config import has_room, unix_paths
from ._log_writer import LogWriter
from ._logging import last_record
from ._options import parse_unix
from ._settings import Settings
from ._systemd import Supervisor, run_detached


def handover_path(settings: Settings, config: Config, sockets: Sequence[socket.socket] = ()) -> str | None:
    """Return the path at which a successor may take over; None for none. By default it is beside the first Unix socket.

    It is absolute where that is not too long, because the successor may run elsewhere.
    """
    if settings.handover == "none":
        return None
    if settings.handover is not None:
        path = parse_unix(settings.handover)
    elif paths := unix_paths(config, sockets):
        path = f"{paths[0]}.handover"
    else:
        return None
    if not UnixAddress(path).is_abstract:
        with suppress(FileNotFoundError):  # opening a listener reports a working directory that was removed
            absolute = os.path.abspath(path)
            # A relay listens at a relative path where the absolute one would be too long.
            path = absolute if has_room(absolute) else path
    # As for the admin endpoint's default: a long path is no reason not to run.
    return path if settings.handover or has_room(path) else None


@dataclass(slots=True)
class HandoverProcess:
    """This process between an old relay and a successor.

    Attributes:
        path: where a successor may take over; None for nowhere.
        succession: what was taken over; None if this relay starts from nothing.
        supervisor: gets the state of the process, and the id of the new main process.
        required: whether the relay ends if it cannot listen at `path`.
    """

    path: str | None = None
    succession: Succession | None = None
    supervisor: Supervisor = field(default_factory=Supervisor)
    required: bool = True
    _handover: Handover | None = field(default=None, init=False)
    _starting: bool = field(default=False, init=False)

    def services(self, writer: LogWriter) -> list[Service]:
        """Return the services beside the relay; `writer` writes the last line when a successor serves."""

        def gone(sessions: int, frames: int) -> NoReturn:
            writer.finish(last_record("handed over", {"sessions": sessions, "frames": frames}))
            os._exit(0)

        def before_go(pid: int) -> None:
            if pid:
                self.supervisor.tell_now(b"MAINPID=%d" % pid)

        if self.path is None:
            return []
        self._handover = Handover(self.path, gone=gone, before_go=before_go, required=self.required)
        return [self._handover]

    def begin(self, relay: Relay) -> None:
        """Let `relay` continue from what was taken over, if anything was. ConfigError if the old relay continues."""
        if self.succession is not None:
            self.succession.begin(relay)
            log(
                logging.INFO,
                "took over",
                sessions=len(relay.exchange.sessions),
                frames=relay.exchange.queued_frames(),
                from_version=self.succession.release,
            )

    async def obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        """Start a successor, in `nursery`, whenever a signal comes."""
        async for _ in signals:
            if os.getpid() == 1:
                hint = "start the new container on the same volume, with --take-over"
                log(logging.ERROR, "process 1 cannot start its successor", hint=hint)
            elif self.path is None or self._handover is None or not self._handover.listens:
                log(logging.ERROR, "no successor can take over", hint="start the relay with --handover PATH")
            elif self._starting:
                log(logging.WARNING, "a successor is starting already")
            else:
                self._starting = True
                nursery.start_soon(self._run_successor, self.path)

    async def _run_successor(self, path: str) -> None:
        command = [sys.executable, *sys.orig_argv[1:]]
        if "--take-over" not in command:
            command.append("--take-over")
        environment = os.environ | self.supervisor.environment | {"TRIORELAY_HANDOVER": path}
        log(logging.INFO, "starting a successor")
        facts: dict[str, object] = {}
        try:
            if self.supervisor.address:
                await run_detached(command, environment)
            else:
                ended = await trio.run_process(command, env=environment, stdin=subprocess.DEVNULL, check=False)
                facts = {"status": ended.returncode}
            # If the successor had taken over, this process would have ended.
            log(logging.ERROR, "the successor ended, this relay continues", **facts)
        except (OSError, subprocess.CalledProcessError) as error:
            log(logging.ERROR, "cannot start a successor, this relay continues", reason=error)
        finally:
            self._starting = False
