"""The examples of the page on recordings."""

from __future__ import annotations

from os import environ
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import run
from tests.cli.test_record import write_recording
from tests.examples.scene import end, python, running, shell
from triorelay.protocol import encode_message
from triorelay.recording import Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("relay")
def test_a_conversation_is_recorded_and_played_again(tmp_path: Path, triorelay_in_path: Path) -> None:
    path = f"{triorelay_in_path}:{environ['PATH']}"
    with running(shell("record_and_play.sh"), cwd=tmp_path, PATH=path) as script:
        code, output, complaint = end(script)
    assert code == 0, complaint
    assert " A to B  " in output
    assert output.endswith("B got the same again\n")
    assert "played 5 frames as A" in complaint


def test_messages_are_read_with_the_package_mcap_alone(tmp_path: Path) -> None:
    data = b"\0" + encode_message(b'{"temperature": 21.5}') + encode_message(b"no JSON")
    write_recording(tmp_path / "run.mcap", [Run(1_500_000_000, 65, 66, data)])
    with running(python("read_recording.py", "run.mcap"), cwd=tmp_path) as reading:
        assert end(reading) == (0, "1.500 /A/B/json {'temperature': 21.5}\n", "")
    assert run("show", "run.mcap", cwd=tmp_path).returncode == 0
