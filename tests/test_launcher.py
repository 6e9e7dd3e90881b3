"""The launcher: what it starts cannot be told from a process that Python started."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.processes import environment, run
from tests.launcher import Program, launcher

if TYPE_CHECKING:
    from pathlib import Path


def start(place: Path, *words: str, loaded: bool) -> Program[str]:
    pipe = subprocess.PIPE
    return Program[str](
        *words, cwd=place, env=environment({}), loaded=loaded, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def forked(process: Program[str]) -> bool:
    """A forked process still has the command line of the launcher."""
    with open(f"/proc/{process.pid}/cmdline") as words:
        return "launcher.py" in words.read()


def test_a_command_ends_in_the_same_way_from_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text("tcp = 'nowhere:at:all'\n")
    forked, real = (run("check", "relay.toml", cwd=tmp_path, loaded=loaded) for loaded in (True, False))
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)
    assert forked.returncode != 0
    assert "relay.toml" in forked.stderr


@pytest.mark.parametrize("loaded", [True, False])
def test_a_relay_from_the_launcher_is_a_child_in_its_directory_that_takes_signals(tmp_path: Path, loaded: bool) -> None:
    with start(tmp_path, "serve", "--unix", "here", loaded=loaded) as process:
        assert process.stderr is not None
        assert any("ready" in line for line in process.stderr)
        assert (tmp_path / "here").is_socket()
        assert forked(process) == loaded
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate()
    assert process.returncode == 0
    assert "stopped" in log
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)


def test_output_that_cannot_be_written_at_the_end_is_told_as_python_tells_it(tmp_path: Path) -> None:
    told = []
    for loaded in (True, False):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            program = Program[str](
                "--help",
                cwd=tmp_path,
                env=environment({}),
                loaded=loaded,
                stdout=writing,
                stderr=subprocess.PIPE,
                text=True,
            )
            told.append((program.communicate()[1], program.returncode))
        finally:
            os.close(writing)
    assert told[0] == told[1]


def test_a_python_whose_popen_is_made_otherwise_starts_programs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def otherwise(self: Any, *everything: Any) -> None:
        real(self, *everything)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", otherwise)
    with start(tmp_path, "receive", loaded=True) as process:
        assert not forked(process)
        process.kill()


def test_another_locale_than_the_launchers_means_a_real_start(tmp_path: Path) -> None:
    assert launcher().for_python == {
        name: value for name, value in environment({}).items() if name.startswith(("PYTHON", "LC_", "LANG"))
    }
    variables = environment({"LC_ALL": "C.UTF-8" if os.environ.get("LC_ALL") != "C.UTF-8" else "C"})
    with Program[str]("receive", cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True) as process:
        assert not forked(process)
        process.kill()
