"""What all tests share: required components, the article's C programs, and no skipping where nothing may be skipped."""

from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.components import require as require_component

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(__file__).parent.parent / "triorelay"
C_SOURCES = Path(__file__).parent / "c"

# A loaded machine is slow, not wrong. Everything else stays as it is, above all the profile for continuous integration.
# `make fuzz` asks for more examples than the default where a test does not say how many it wants.
EXAMPLES = int(os.environ.get("EXAMPLES") or hypothesis.settings().max_examples)
hypothesis.settings.register_profile("triorelay", hypothesis.settings.default, deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("triorelay")

MOST_WORKERS = 16
"""Tests that run at a time, on however large a machine: each may have a hundred processes and thousands of sockets."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run four tests for each processor: most of a test's time is waiting, for leases, deadlines and processes."""
    return min(4 * len(os.sched_getaffinity(0)), MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests that take longest begin first, so that the workers end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Keep what was collected out of the garbage collections to come: it is there until the end."""
    gc.freeze()


def pytest_configure() -> None:
    """Refuse to test what was compiled from an earlier state of its source."""
    # A shell that runs the tests in the background has them, and all that they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # So it is under nohup, whose protection this process keeps, and what it starts does not inherit.
        signal.signal(signal.SIGHUP, lambda *_: None)
    for compiled in PACKAGE.rglob("*.so"):
        source = compiled.with_name(f"{compiled.name.partition('.')[0]}.py")
        if not source.exists() or source.stat().st_mtime > compiled.stat().st_mtime:
            pytest.exit(f"{source} is newer than what was compiled from it: try make compiled, or make pure", 4)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the components that a test's `needs` markers name, before any fixture is set up."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            require_component(name)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With TRIORELAY_REQUIRE_ALL=1 a skipped test, for whatever reason, is a failure of the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("TRIORELAY_REQUIRE_ALL") != "1":
        return
    if reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line("\nTests were skipped, and TRIORELAY_REQUIRE_ALL=1 allows none to be.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """A function that returns a component's path, or skips or fails the test: see `tests.components`."""
    return require_component


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that compiles `tests/c/NAME.c` with the system's compiler, once a run: it returns the program."""
    directory = tmp_path_factory.mktemp("c")

    @functools.cache
    def compile_source(name: str) -> Path:
        program = directory / name
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([require_component("gcc"), *flags, "-o", program, C_SOURCES / f"{name}.c"], check=True)
        return program

    return compile_source
