"""From an error to one line and an exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import click
import pytest

from tests.cli.processes import environment
from triorelay.cli._errors import report
from triorelay.protocol import ConfigError, HelloRefused

CASES = [
    (ConfigError("the port is taken"), 1, "triorelay: the port is taken"),
    (HelloRefused(65, 1), 1, "triorelay: the relay refused id A: the id is taken (code 1)"),
    (OSError(errno.ENOENT, "No such file or directory", "a\nb"), 1, "triorelay: a\\nb: No such file or directory"),
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


def test_a_descriptor_that_is_none_is_a_bug_though_the_system_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(OSError(errno.EBADF, "Bad file descriptor")) == 1
    printed = capsys.readouterr().err
    assert not printed.startswith("triorelay: ")
    assert "OSError" in printed


def test_output_that_nobody_reads_any_more_is_no_matter_even_from_within_a_nursery() -> None:
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
