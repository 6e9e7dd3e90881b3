"""What shells offer: commands, options, and the ids that are there, by the real shells."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.cli.processes import environment, relay
from tests.cli.terminal import program_in_terminal
from tests.cli.test_admin import join
from tests.components import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.processes import RelayProcess


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory whose `bin` has the command, as shells look for it."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "triorelay"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m triorelay "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.fixture
def running(place: Path) -> Iterator[RelayProcess]:
    """A relay, and on it the clients B, 0x01 and *."""
    with (
        relay("--unix", "server_socket", cwd=place) as process,
        join(place, b"B"),
        join(place, b"\x01"),
        join(place, b"*"),
    ):
        yield process


def shell(name: str, script: str, place: Path, **variables: str) -> str:
    """Run a script with the command in its PATH and return what it prints."""
    variables["PATH"] = f"{place}/bin:{os.environ['PATH']}"
    result = subprocess.run(
        [require(name), "-c", script],
        cwd=place,
        env={**environment(variables), "HOME": str(place)},
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def bash(line: str, place: Path, **variables: str) -> list[str]:
    """What bash offers at the end of a line, by the function that our script defines."""
    source = place / "completion.bash"
    if not source.exists():
        source.write_text(shell("bash", "_TRIORELAY_COMPLETE=bash_source triorelay", place))
    script = """
    source completion.bash
    complete -p triorelay > /dev/null
    read -ra COMP_WORDS <<< "$1"
    [[ $1 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _triorelay_completion triorelay
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    return shell("bash", f"set -- '{line}'\n{script}", place, **variables).split()


@pytest.mark.needs("bash")
class TestBash:
    def test_commands(self, place: Path) -> None:
        assert bash("triorelay se", place) == ["serve", "send"]
        assert bash("triorelay w", place) == ["who"]

    def test_options_and_their_choices(self, place: Path) -> None:
        assert bash("triorelay send --w", place) == ["--wait"]
        assert bash("triorelay receive --format ", place) == ["text", "json", "raw"]
        assert bash("triorelay serve --overflow ", place) == ["wait", "drop"]

    @pytest.mark.usefixtures("running")
    def test_ids_that_are_there_and_need_no_quotes(self, place: Path) -> None:
        for command in ("send", "pipe", "who"):
            assert bash(f"triorelay {command} ", place) == ["0x01", "B"], command
            assert bash(f"triorelay {command} 0", place) == ["0x01"], command

    @pytest.mark.usefixtures("running")
    def test_the_relay_is_the_one_that_the_line_or_the_environment_names(self, place: Path) -> None:
        (place / "other").mkdir()
        assert bash("triorelay send -r nosuch ", place) == []
        assert bash("triorelay send -r ./server_socket ", place, TRIORELAY_RELAY="nosuch") == ["0x01", "B"]
        assert bash("triorelay send ", place, TRIORELAY_RELAY="nosuch") == []
        assert bash("triorelay send -r tcp:host:no_port ", place) == []

    @pytest.mark.usefixtures("running")
    def test_ids_for_admin_commands_come_from_the_endpoint(self, place: Path) -> None:
        for words in ("close ", "monitor --from ", "monitor --to "):
            assert bash(f"triorelay {words}", place) == ["0x01", "B"], words
            assert bash(f"triorelay {words}", place, TRIORELAY_ADMIN="nosuch") == [], words

    @pytest.mark.usefixtures("running")
    def test_ids_for_admin_commands_come_from_the_endpoint_that_the_line_names(self, place: Path) -> None:
        line = "triorelay close --admin ./server_socket.admin 0"
        assert bash(line, place, TRIORELAY_ADMIN="nosuch") == ["0x01"]
        assert bash("triorelay close --admin tls:host:1 ", place) == []

    @pytest.mark.parametrize(
        "line",
        [
            "triorelay check rel",
            "triorelay serve --config rel",
            "triorelay serve --tls-cert rel",
            "triorelay serve --unix rel",
            "triorelay who --token-file rel",
        ],
    )
    def test_names_of_files_are_completed_by_the_shell_itself(self, place: Path, line: str) -> None:
        (place / "relay.toml").write_text("")
        path = {"PATH": f"{place}/bin:{os.environ['PATH']}"}
        with program_in_terminal(["bash", "--norc", "--noprofile", "-i"], cwd=place, settings=path) as terminal:
            terminal.press('PS1="ready> "; eval "$(_TRIORELAY_COMPLETE=bash_source triorelay)"\n')
            terminal.until("ready> $")
            terminal.press(f"{line}\t")
            terminal.until(r"relay\.toml")

    def test_without_a_relay_nothing_is_offered_and_nothing_said(self, place: Path) -> None:
        assert bash("triorelay send ", place) == []


@pytest.mark.needs("fish")
@pytest.mark.usefixtures("running")
def test_fish(place: Path) -> None:
    source = "_TRIORELAY_COMPLETE=fish_source triorelay | source;"
    offered = shell("fish", f"{source} complete --do-complete 'triorelay se'", place)
    told = {"serve\tRun a relay until SIGTERM or Ctrl-C.", "send\tSend bytes to a client."}
    assert set(offered.splitlines()) == told
    assert set(shell("fish", f"{source} complete --do-complete 'triorelay send '", place).split()) == {"0x01", "B"}


@pytest.mark.needs("zsh")
@pytest.mark.usefixtures("running")
def test_zsh(place: Path) -> None:
    # The widgets that zsh completes by need a terminal; what our function hands them does not.
    script = """
    compdef() { defined=$* }
    eval "$(_TRIORELAY_COMPLETE=zsh_source triorelay)"
    _describe() { print -l -- "${(@P)3}" }
    compadd() { [[ $1 == -U ]] && print -l -- "${(@P)${@[-1]}}" }
    typeset -A compstate
    words=(triorelay $LINE) CURRENT=$((${#words} + ${EXTRA:-0}))
    _triorelay_completion
    """
    offered = shell("zsh", script, place, LINE="se")
    assert [line.partition(":")[0] for line in offered.split("\n") if line] == ["serve", "send"]
    assert shell("zsh", script, place, LINE="send", EXTRA="1").split() == ["0x01", "B"]


def test_completing_a_command_loads_no_command(place: Path) -> None:
    # The modules of a command take longer to load than a user who pressed a key should wait.
    program = (
        "import sys\n"
        "from triorelay.cli import main\n"
        "try:\n"
        "    main([])\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=place,
        env={
            **environment({}),
            "_TRIORELAY_COMPLETE": "bash_complete",
            "COMP_WORDS": "triorelay s",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=processes.PATIENCE,
    )
    assert result.stdout.split() == ["plain,serve", "plain,send", "plain,status", "plain,show"]
    assert not {"trio", "msgspec", "triorelay.cli._serve"} & set(result.stderr.split())
