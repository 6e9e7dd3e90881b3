"""`monitor --pcapng`: what a relay routes, as packets."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import PATIENCE, assert_one_line, command, environment, relay, run
from tests.cli.test_admin import join
from tests.wireshark import dissect, fields
from triorelay.cli._recorder import OutputFile
from triorelay.protocol import address_frames, encode_message

if TYPE_CHECKING:
    from pathlib import Path


def capturing(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """A `monitor --pcapng` that sees every frame."""
    process = subprocess.Popen(
        command("monitor", "--pcapng", *arguments),
        cwd=cwd,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"capturing to ")
    return process


@pytest.mark.needs("tshark")
@pytest.mark.parametrize("place", ["run.pcapng", "-"])
def test_what_is_relayed_is_seen_by_tshark(tmp_path: Path, place: str) -> None:
    message = encode_message(b'{"x": 1}')
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        join(tmp_path, b"B") as b,
        capturing(place, "--to", "B", cwd=tmp_path) as process,
    ):
        b.sendall(b"A!")
        assert a.recv(2) == b"B!"
        a.sendall(address_frames(ord("B"), message))
        assert b.recv(100) == address_frames(ord("A"), message)
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=PATIENCE)
    if place == "-":
        (tmp_path / "piped").write_bytes(output)
    else:
        assert output == b""
    capture = tmp_path / ("piped" if place == "-" else place)
    assert b"captured 1 packets\n" in said
    assert dissect(capture) == [f"{len(message)} frames from A to B, message of 8 bytes"]
    assert fields(capture, "triorelay.message.text") == [['{"x": 1}']]


def test_a_full_disk_is_said_in_a_line(tmp_path: Path) -> None:
    with relay(cwd=tmp_path):
        assert_one_line(run("monitor", "--pcapng", "/dev/full", cwd=tmp_path), 1, "/dev/full: No space left on device")


def test_a_pipe_that_another_program_made_non_blocking_is_waited_for() -> None:
    data = bytes(range(256)) * 4096
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb") as pipe, open(writer, "wb", buffering=0) as file:
        output = OutputFile(file.fileno())
        thread = threading.Thread(target=output.write, args=(data,))
        thread.start()
        assert pipe.read(len(data)) == data
        thread.join(PATIENCE)
    assert output.tell() == len(data)
