"""From the exception that ended a command to one line on standard error and an exit code.

An error that a user can cause gets one line that says what is wrong. Any other is a bug and gets its traceback, like
the few errors of the system that only a bug can cause.
"""

import errno
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import IO

import click

from ..protocol import ConfigError, RelayError
from ._log_writer import LAST_SECONDS
from ._logging import one_line

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
"""The exit code that a shell shows for a process that Ctrl-C ended."""
NO_THREAD = "no thread can be started: raise the limit of processes (ulimit -u, TasksMax=, a container's pids limit)"
LOGGER = logging.getLogger("triorelay")


def report(error: BaseException, reword: Callable[[str], str] = str) -> int:
    """Report on standard error why the command ended, and return its exit code; `reword` is for settings' names.

    A relay that has set up its log reports it there, so that every line has the same format.
    """
    leaves = _leaves(error)
    lines = [reword(str(leaf)) if isinstance(leaf, ConfigError) else _explain(leaf) for leaf in leaves]
    if None in lines:
        if LOGGER.handlers:
            LOGGER.error("internal error", exc_info=error)
        else:
            traceback.print_exception(error)
        return FAILED
    for line in dict.fromkeys(filter(None, lines)):
        if LOGGER.handlers:
            LOGGER.error(line)
        else:
            _say(f"triorelay: {one_line(line)}")
    return max(_exit_code(leaf) for leaf in leaves)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _explain(error: BaseException) -> str | None:
    """Return the line to print; empty for no line, None for a bug."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return ""
        case click.UsageError():
            hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
            return f"{error.format_message().rstrip('.')}{hint}"
        case click.ClickException():
            return error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return "interrupted"
        case BrokenPipeError():
            _forget(sys.stdout)
            return ""
        case OSError(errno=errno.EBADF | errno.EFAULT | errno.ENOTSOCK):
            return None
        case OSError():
            reason = error.strerror or str(error)
            return f"{error.filename}: {reason}" if error.filename else reason
        case RelayError() | UnicodeError():
            return str(error)
        case MemoryError():
            return "out of memory"
    return NO_THREAD if is_out_of_threads(error) else None


def is_out_of_threads(error: BaseException) -> bool:
    """Return whether the system has no thread left; Python has no exception class for that."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def _exit_code(error: BaseException) -> int:
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, click.ClickException) else FAILED


def _say(line: str) -> None:
    """Write a line on standard error, unless that takes none: the exit code says it all the same."""
    try:
        if _has_room(sys.stderr):
            click.echo(line, err=True)
    except OSError:
        _forget(sys.stderr)


def _has_room(file: IO[str]) -> bool:
    try:
        descriptor = file.fileno()
    except OSError:  # a program that calls this one has replaced it
        return True
    return bool(select.select((), (descriptor,), (), LAST_SECONDS)[1])


def _forget(file: IO[str]) -> None:
    """After the reader of a standard stream has closed it, let the interpreter's last flush do nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
