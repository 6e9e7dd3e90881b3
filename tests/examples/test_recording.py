"""The examples of the page on recordings."""

from __future__ import annotations

import re
import shlex
import signal
from os import environ
from typing import TYPE_CHECKING

import pytest

from tests.cli.clients import client, finish
from tests.cli.processes import relay as started_relay
from tests.cli.processes import run
from tests.cli.test_record import recording, stop, write_recording
from tests.examples.scene import EXAMPLES, end, python, running, shell
from triorelay.protocol import encode_message
from triorelay.recording import Run

if TYPE_CHECKING:
    from pathlib import Path

PAGE = EXAMPLES.parent / "how-to" / "record.md"


@pytest.mark.usefixtures("relay")
def test_a_conversation_is_recorded_and_played_again(tmp_path: Path, triorelay_in_path: Path) -> None:
    path = f"{triorelay_in_path}:{environ['PATH']}"
    with running(shell("record_and_play.sh"), cwd=tmp_path, PATH=path) as script:
        code, output, complaint = end(script)
    assert code == 0, complaint
    assert " A to B  " in output
    assert output.endswith("B got the same again\n")
    assert "played 5 frames as A" in complaint


def commands_of_the_page() -> list[list[str]]:
    """The commands in the page's blocks, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def speak(directory: Path) -> None:
    """A says a message to B."""
    with client("receive", "--id", "B", "--count", "15", cwd=directory) as receiver:
        said = run("send", "--id", "A", "--wait", "20", "--message", "B", '{"x": 1}', cwd=directory)
        assert said.returncode == 0, said.stderr
        assert finish(receiver)[0] == 0


def obey(words: list[str], directory: Path) -> None:
    """Run a command of the page until it has done what it is there for."""
    match words:
        case ["triorelay", "serve", *options]:
            elsewhere = directory / "elsewhere"
            elsewhere.mkdir()
            with started_relay(*options, cwd=elsewhere) as another:
                another.signal(signal.SIGTERM)
                assert another.end()[0] == 0
        case ["triorelay", "record", *options] if "--last" not in options:
            with recording(*options, cwd=directory) as process:
                speak(directory)
                code, told = stop(process)
            assert (code, told) == (0, "recorded 15 frames, 1 messages\n")
        case ["triorelay", "play", *options] if "--step" in options:
            with client("play", *options, cwd=directory) as process:
                assert process.stdin is not None
                process.stdin.write(b"\n" * 20)
                assert finish(process)[0] == 0
        case ["triorelay", *command]:
            result = run(*command, cwd=directory)
            assert result.returncode == 0, result.stderr
        case _:
            raise AssertionError(f"no command that is known here: {words}")


def test_every_command_of_the_page_does_what_it_is_there_for(tmp_path: Path) -> None:
    commands = commands_of_the_page()
    assert {words[1] for words in commands} == {"serve", "record", "show", "play"}
    with started_relay("--flight-recorder", "1000000", cwd=tmp_path):
        for words in commands:
            obey(words, tmp_path)
    assert {path.name for path in tmp_path.glob("*.mcap")} >= {"run.mcap", "a-to-b.mcap", "before.mcap"}


def test_messages_are_read_with_the_package_mcap_alone(tmp_path: Path) -> None:
    data = b"\0" + encode_message(b'{"temperature": 21.5}') + encode_message(b"no JSON")
    write_recording(tmp_path / "run.mcap", [Run(1_500_000_000, 65, 66, data)])
    with running(python("read_recording.py", "run.mcap"), cwd=tmp_path) as reading:
        assert end(reading) == (0, "1.500 /A/B/json {'temperature': 21.5}\n", "")
    assert run("show", "run.mcap", cwd=tmp_path).returncode == 0
