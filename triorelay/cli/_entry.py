"""The program `triorelay`, from its first moment: errors that come before the rest of the program can report them."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that may end a relay before it is ready; SIGHUP only if its terminal closed."""
RELAY_SIGNALS = (*ENDING_SIGNALS, signal.SIGUSR1, signal.SIGUSR2)
"""What a relay obeys; blocked from the first moment of `serve`, let through once it can, blocked again at its end. In
the image `env` blocks them before Python starts."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process: 0 when all went well, 1 when something failed, 2 on wrong usage, 130
    on Ctrl-C.

    Args:
        arguments: the words after the program's name; those of the process by default.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["serve"]:
        # A relay obeys signals, as process 1 too, to which the kernel delivers only what it asked for. Until it can, in
        # a few tenths of a second, they wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, RELAY_SIGNALS)
    _open_missing_streams()
    try:
        if words[:1] == ["health"]:
            from ._probe import reports_alive

            if reports_alive(words[1:]):
                sys.exit(0)
        if words[:1] != ["serve"]:
            _let_signals_through()
        from ._errors import report
        from ._main import triorelay
    except KeyboardInterrupt:
        sys.stderr.write("triorelay: interrupted\n")
        sys.exit(130)
    try:
        code = triorelay.main(arguments, prog_name="triorelay", standalone_mode=False)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        code = report(error)
    sys.exit(code)


def _let_signals_through() -> None:
    """Let signals end a command that is no relay: as process 1 too, to which the kernel delivers no SIGTERM that the
    process did not ask for."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RELAY_SIGNALS)


def _open_missing_streams() -> None:
    """Replace closed standard input, output and error by the null device, before a socket gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
