"""From an error to one line and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import pytest

from tests.cli import processes
from tests.cli.processes import environment
from tests.watchdog import watched
from triorelay.cli._errors import NO_THREAD, report
from triorelay.protocol import ConfigError, HelloRefused

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    (ConfigError("the port is taken"), 1, "triorelay: the port is taken"),
    (HelloRefused(65, 1), 1, "triorelay: the relay refused id A: the id is taken (code 1)"),
    (OSError(errno.ENOENT, "No such file or directory", "a\nb"), 1, "triorelay: a\\nb: No such file or directory"),
    (UnicodeError("label empty or too long"), 1, "triorelay: label empty or too long"),
    (MemoryError(), 1, "triorelay: out of memory"),
    (RuntimeError("can't start new thread"), 1, f"triorelay: {NO_THREAD}"),
    (OSError("no room"), 1, "triorelay: no room"),
    (KeyboardInterrupt(), 130, "triorelay: interrupted"),
    (click.Abort(), 130, "triorelay: interrupted"),
    (click.UsageError("what?"), 2, "triorelay: what?"),
    (click.ClickException("odd"), 1, "triorelay: odd"),
    (ExceptionGroup("", [ExceptionGroup("", [ConfigError("deep")])]), 1, "triorelay: deep"),
    (ExceptionGroup("", [ConfigError("one"), ConfigError("one")]), 1, "triorelay: one"),
]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    CASES,
    ids=[type(error).__name__ + f" {number}" for number, (error, _, _) in enumerate(CASES)],
)
def test_what_a_user_can_cause_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_an_invalid_descriptor_is_a_bug_although_the_system_reports_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(OSError(errno.EBADF, "Bad file descriptor")) == 1
    printed = capsys.readouterr().err
    assert not printed.startswith("triorelay: ")
    assert "OSError" in printed


def test_closed_standard_output_ends_quietly_even_from_within_a_nursery() -> None:
    program = (
        "import sys; from triorelay.cli._errors import report; print('lost');"
        "sys.exit(report(ExceptionGroup('', [BrokenPipeError()])))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=environment({"PYTHONUNBUFFERED": ""}),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("kind", ["closed", "unread", "full"])
def test_a_standard_error_that_takes_no_line_does_not_change_the_exit_code(kind: str) -> None:
    program = "import sys, click; from triorelay.cli._errors import report; sys.exit(report(click.UsageError('no')))"
    reading, writing = os.pipe()
    if kind == "closed":
        os.close(reading)
    elif kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), writing)
    else:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
    try:
        command = [sys.executable, "-c", program]
        assert subprocess.run(command, env=environment({}), stderr=writing, timeout=processes.PATIENCE).returncode == 2
    finally:
        os.close(writing)
        if kind != "closed":
            os.close(reading)


def test_two_failures_at_once_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ExceptionGroup("", [ConfigError("one"), click.UsageError("two")])) == 2
    assert capsys.readouterr().err == "triorelay: one\ntriorelay: two\n"


def test_wrong_usage_points_to_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(click.Command("serve"), info_name="triorelay serve")
    assert report(click.UsageError("no such thing.", context)) == 2
    assert capsys.readouterr().err == "triorelay: no such thing (see triorelay serve --help)\n"


def test_a_bug_gets_its_traceback_even_beside_something_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ExceptionGroup("", [ConfigError("one"), ZeroDivisionError("a bug")])) == 1
    printed = capsys.readouterr().err
    assert "ConfigError: one" in printed
    assert "ZeroDivisionError: a bug" in printed


WITHOUT_THREADS = """
import sys, threading
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
from triorelay.cli import main
main(sys.argv[1:])
"""
"""A program that gets no thread: what a limit of processes does, which does not bind the superuser."""


@pytest.mark.parametrize(
    "words",
    [
        ["who", "--relay", "tcp:localhost:1"],
        ["status", "--admin", "localhost:1"],
        ["send", "--relay", "tcp:localhost:1", "A", "-"],
        ["pipe", "--relay", "tcp:localhost:1", "A"],
        ["ping", "--relay", "tls:localhost:1"],
    ],
    ids=lambda words: words[0],
)
def test_without_a_thread_a_command_says_so_in_one_line(tmp_path: Path, words: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS, *words],
        cwd=tmp_path,
        env=processes.environment({}),
        input="",
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
    )
    complaint = r"no thread (can be started: raise the limit of processes|left for a name look-up)"
    processes.assert_one_line(result, 1, complaint)


def test_without_a_thread_a_relay_serves_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    with watched(
        subprocess.Popen(
            [sys.executable, "-c", WITHOUT_THREADS, "serve", "--unix", "s", "--flight-recorder", "65536"],
            cwd=tmp_path,
            env=processes.environment({}),
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        running = processes.RelayProcess(process, "")
        running.wait_for("ready")
        assert processes.run("ping", "-n", "1", "--relay", "unix:s", cwd=tmp_path).returncode == 0
        running.signal(signal.SIGHUP)
        assert "no thread can be started" in running.wait_for("reload failed")
        running.signal(signal.SIGUSR1)
        running.wait_for("flight recorder not written")
        running.signal(signal.SIGTERM)
        code, lines = running.end()
        assert (code, lines[-1].split()[0]) == (0, "ledger")
        assert not any("Traceback" in line for line in lines)
