"""A relay as a process: signals, the ready line, the ledger as the last line.

The first SIGTERM or SIGINT drains the relay; the second one cancels everything. On SIGHUP a thread reads the
configuration again, within `RELOAD_SECONDS`; a mistake is logged and changes nothing. If a terminal closes, its SIGHUP
drains. Signals that come before the relay can obey wait (`_entry`). The log says what ended the relay before the
ledger, which is the last line on standard error at every level, if standard error takes it within a second. The
supervisor gets a message when the relay is ready and when it stops, and regular signs of life.
"""

import gc
import logging
import os
import re
import shlex
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import trio

from ..protocol import ConfigError, DropReason
from ..relay import ANY_NETWORK, PRIVATE_NETWORKS, Config, Prepared, Relay, Remote, Service, log, prepare, serve
from ._entry import ENDING_SIGNALS, RELAY_SIGNALS
from ._errors import FAILED, NO_THREAD, is_out_of_threads, report
from ._handover import HandoverProcess
from ._logging import LogFormat, LogLevel, last_record, log_to_stderr
from ._systemd import READY, STOPPING
from ._terminal import Terminal

LOGGER = logging.getLogger("triorelay")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RELOAD_SECONDS = 10.0
"""Seconds for all files of a reload. After that, as with a network file system that hangs, the reload is given up."""


@dataclass(slots=True)
class RelayProcess:
    """A relay as this process.

    Attributes:
        read_again: given the running settings, returns the new ones, or raises ConfigError; called in a thread. By
            default SIGHUP reads the files of the same settings again.
        sockets: listening sockets that were handed over to it.
        sockets_of: the process that sockets were handed over to, if that is another one; they are not used, and the log
            says so.
        handover: what it takes over from an old relay, and hands over to a successor; nothing by default.
        reword: what to make of a message about a setting, so that it names the option.
        relay: the relay, once it listened.
        cut_short: whether a second signal ended it.
    """

    config: Config
    _: KW_ONLY
    log_format: LogFormat
    log_level: LogLevel
    read_again: Callable[[Config], Prepared] = prepare
    services: Sequence[Service] = ()
    remote: Remote | None = None
    sockets: Sequence[socket.socket] = ()
    sockets_of: str = ""
    handover: HandoverProcess = field(default_factory=HandoverProcess)
    reword: Callable[[str], str] = str
    relay: Relay | None = field(default=None, init=False)
    cut_short: bool = field(default=False, init=False)
    _terminal: Terminal = field(default_factory=Terminal, init=False)
    _ready: trio.Event = field(default_factory=trio.Event, init=False)
    _readers: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1), init=False)

    def run(self) -> int:
        """Run the relay until a signal stops it, and return the exit code of the process."""
        writer = log_to_stderr(self.log_format, self.log_level)
        if self.sockets_of:
            hint = "a program between systemd and the relay has to replace itself by the relay, as exec does in a shell"
            log(logging.WARNING, "sockets were handed over to another process", listen_pid=self.sockets_of, hint=hint)
        self.services = [*self.services, *self.handover.services(writer)]
        try:
            with self.handover.succession or nullcontext():
                trio.run(self._run)
            code = FAILED if self.cut_short else 0
        except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
            code = report(error, self.reword)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        writer.finish(*([] if self.relay is None else [last_record("ledger", flat_ledger(self.relay))]))
        return code

    async def _run(self) -> None:
        with (
            trio.open_signal_receiver(*STOP_SIGNALS) as signals,
            trio.open_signal_receiver(signal.SIGHUP) as hangups,
            trio.open_signal_receiver(signal.SIGUSR2) as handover_signals,
        ):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, nursery)
                nursery.start_soon(self._obey_hangups, hangups, nursery)
                nursery.start_soon(self.handover.supervisor.keep_informed)
                self.relay = await nursery.start(self._serve, nursery.cancel_scope)
                # What there is by now stays: a collection of garbage that looked at it too would take about 10 ms.
                gc.freeze()
                log(logging.INFO, "ready", **ready_fields(self.relay, self.config, self.services))
                self._ready.set()
                await self.handover.supervisor.tell(READY)
                nursery.start_soon(self.handover.obey, handover_signals, nursery)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, RELAY_SIGNALS)
            # A signal that comes while the process ends must not end it before the ledger is written, or with -15.
            signal.pthread_sigmask(signal.SIG_BLOCK, RELAY_SIGNALS)

    async def _serve(self, everything: trio.CancelScope, *, task_status: trio.TaskStatus[Relay]) -> None:
        await serve(
            self.config,
            services=self.services,
            remote=self.remote,
            sockets=self.sockets,
            begin=self.handover.begin,
            task_status=task_status,
        )
        everything.cancel()

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        await anext(signals)
        self._stop(nursery)
        await anext(signals)
        self.cut_short = True
        log(logging.WARNING, "stopped at once by a second signal")
        nursery.cancel_scope.cancel()

    def _stop(self, nursery: trio.Nursery) -> None:
        """Drain; before there is anything to drain, end."""
        if self.relay is None:
            nursery.cancel_scope.cancel()
        else:
            nursery.start_soon(self.handover.supervisor.tell, STOPPING)
            self.relay.drain()

    async def _obey_hangups(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for _ in signals:
            if self._terminal.has_hung_up():
                log(logging.INFO, "terminal closed", ignored=self._terminal.may_go)
                if not self._terminal.may_go:
                    self._stop(nursery)
            else:
                await self._ready.wait()
                await self._reload()

    async def _reload(self) -> None:
        assert self.relay is not None
        try:
            with trio.fail_after(RELOAD_SECONDS):
                prepared = await trio.to_thread.run_sync(
                    self.read_again, self.relay.config, abandon_on_cancel=True, limiter=self._readers
                )
            self.relay.take_over(prepared)
            return
        except ConfigError as error:
            reason = self.reword(str(error))
        except trio.TooSlowError:
            reason = f"the files could not be read within {RELOAD_SECONDS:.0f} s"
        except Exception as error:
            if not is_out_of_threads(error):
                LOGGER.exception("a bug in reloading; the old settings stay")
                return
            reason = NO_THREAD
        log(logging.ERROR, "reload failed, the old settings stay", reason=reason)


def ready_fields(relay: Relay, config: Config, services: Sequence[Service]) -> dict[str, object]:
    """Return what the ready line says: where the relay listens, which clients may connect, and the dashboard."""
    # No client can connect to "every interface".
    reachable = re.sub(r"^(tcp|tls):(\[::\]|0\.0\.0\.0):", r"\1:localhost:", relay.addresses[0])
    dashboards = [address for service in services if (address := getattr(service, "dashboard", ""))]
    return {
        "listening": relay.addresses,
        "open": [_openness(address, config) for address in relay.addresses],
        "memory_ceiling": relay.memory_ceiling,
        **({"dashboard": dashboards[0]} if dashboards else {}),
        "try": f"triorelay who --relay {shlex.quote(reachable)}",
    }


def _openness(address: str, config: Config) -> str:
    transport, _, place = address.partition(":")
    if config.principals:
        return f"{transport} {place} is for principals of the policy"
    if transport == "tls" and config.tls_files and config.tls_files.client_ca:
        return f"tls {place} is for clients with a certificate"
    if transport == "unix":
        return f"unix {place} is open to {_admitted(place)}"
    return f"{transport} {place} has no authentication; {_who(config)} may connect"


def _admitted(path: str) -> str:
    """Return whom the mode of a Unix socket lets in, perhaps one of another program; an abstract name has none."""
    mode = 0o777
    if not path.startswith("@"):
        with suppress(OSError):
            mode = os.stat(path).st_mode
    if mode & stat.S_IWOTH:  # connecting takes the right to write
        return "every user"
    return "its owner and group" if mode & stat.S_IWGRP else "its owner"


def _who(config: Config) -> str:
    names: list[object] = list(config.allow) or ["no host"]
    if set(config.allow) >= set(ANY_NETWORK):
        return "every host"
    if set(config.allow) >= set(PRIVATE_NETWORKS):
        names = ["private networks", *(network for network in config.allow if network not in PRIVATE_NETWORKS)]
    return " and ".join(map(str, names))


def flat_ledger(relay: Relay) -> dict[str, int]:
    """Return the ledger as one number a key, drop reasons that never occurred included."""
    ledger: dict[str, Any] = relay.ledger.summary(relay.exchange.queued_frames())
    dropped: dict[str, int] = ledger["dropped"]
    return {
        **{key: ledger[key] for key in ("accepted", "copied", "written", "queued", "control", "partial")},
        **{f"dropped.{reason.value}": dropped.get(reason.value, 0) for reason in DropReason},
        **{key: ledger[key] for key in ("forwarded", "imported")},
    }
