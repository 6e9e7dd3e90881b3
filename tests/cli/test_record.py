"""`record` and `show`, as processes, against a relay that is one too."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from mcap.reader import make_reader

from tests.cli.processes import PATIENCE, assert_one_line, command, environment, relay, run
from tests.cli.test_admin import join
from triorelay.protocol import address_frames, encode_message
from triorelay.recording import Run
from triorelay.recording._writer import RecordingWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextmanager
def recording(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A `record` for the length of the block, from when it sees every frame."""
    with subprocess.Popen(
        command("record", *arguments),
        cwd=cwd,
        env=environment({}),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("recording to ")
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def write_recording(path: Path, runs: Iterable[Run]) -> None:
    with path.open("wb") as file:
        writer = RecordingWriter(file, {"relay": "unix:server_socket"}, "test")
        for entry in runs:
            writer.add(entry)
        writer.finish()


def test_what_is_relayed_is_in_the_file_and_is_shown_as_monitor_shows_it(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, join(tmp_path, b"B") as b:
        with recording("run.mcap", cwd=tmp_path) as process:
            a.sendall(b"B\x01Bx")
            assert b.recv(4) == b"A\x01Ax"
            b.sendall(address_frames(ord("A"), encode_message(b'{"x": 1}')))
            assert a.recv(100)
            code, said = stop(process)
        frames = 2 + len(encode_message(b'{"x": 1}'))
        assert (code, said) == (0, f"recorded {frames} frames, 1 messages\n")
    shown = run("show", "run.mcap", cwd=tmp_path)
    first, second = shown.stdout.splitlines()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} A to B  01 78  \.x", first)
    assert " B to A " in second
    (line,) = run("show", "run.mcap", "--from", "A", "--json", cwd=tmp_path).stdout.splitlines()
    look = json.loads(line)
    assert isinstance(look.pop("time"), float)
    assert look == {"source": 65, "destination": 66, "data": "0178"}
    told = run("show", "run.mcap", "--messages", "--from", "B", cwd=tmp_path).stdout
    assert told.endswith(' B to A  {"x": 1}\n')
    (line,) = run("show", "run.mcap", "--messages", "--format", "json", "--to", "A", cwd=tmp_path).stdout.splitlines()
    assert json.loads(line)["text"] == '{"x": 1}'
    with (tmp_path / "run.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        ((_, channel, message),) = reader.iter_messages(topics=["/B/A/json"])
        assert (channel.message_encoding, message.data) == ("json", b'{"x": 1}')
        about = {record.name: record.metadata for record in reader.iter_metadata()}
    assert about["triorelay"]["relay"] == "unix:server_socket"
    assert about["triorelay.end"]["lost"] == "0"


def test_only_what_was_asked_for_is_recorded(tmp_path: Path) -> None:
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        join(tmp_path, b"C") as c,
        recording("--from", "A", "--to", "C", "run.mcap", cwd=tmp_path) as process,
    ):
        c.sendall(b"C1")
        assert c.recv(2) == b"C1"
        a.sendall(b"Z2C3")
        assert c.recv(2) == b"A3"
        assert stop(process) == (0, "recorded 1 frames, 0 messages\n")
    assert run("show", "run.mcap", cwd=tmp_path).stdout.endswith("A to C  33  3\n")


def test_it_ends_after_the_time_that_is_given_and_by_ctrl_c(tmp_path: Path) -> None:
    with relay(cwd=tmp_path):
        timed = run("record", "--for", "0", "timed.mcap", cwd=tmp_path)
        assert (timed.returncode, timed.stderr.splitlines()[-1]) == (0, "recorded 0 frames, 0 messages")
        with recording("run.mcap", cwd=tmp_path) as process:
            code, said = stop(process, signal.SIGINT)
        assert code != 0
        assert said.split("\n") == ["recorded 0 frames, 0 messages", "triorelay: interrupted", ""]
    for name in ("timed.mcap", "run.mcap"):
        assert run("show", name, cwd=tmp_path).stderr == ""


def test_a_flood_is_relayed_whole_and_each_frame_is_recorded_or_counted_as_lost(tmp_path: Path) -> None:
    frames, block = 0, b"B." * 32768
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        join(tmp_path, b"B") as b,
        recording("run.mcap", cwd=tmp_path) as process,
    ):
        for _ in range(100):
            a.sendall(block)
            frames += 32768
            left = len(block)
            while left:
                left -= len(b.recv(left))
        code, said = stop(process)
    assert code == 0
    found = re.fullmatch(r"recorded (\d+) frames, 0 messages(?:, (\d+) lost)?\n", said)
    assert found is not None
    with (tmp_path / "run.mcap").open("rb") as file:
        reader = make_reader(file)
        kept = {channel.topic: message for _, channel, message in reader.iter_messages()}
        books = {record.name: record.metadata for record in reader.iter_metadata()}["triorelay.end"]
    assert int(books["frames"]) == int(found[1])
    assert int(books["lost"]) == int(found[2] or 0)
    assert int(books["frames"]) + int(books["lost"]) == frames
    assert "/A/B" in kept


def test_the_end_of_the_relay_ends_the_recording_which_is_whole(tmp_path: Path) -> None:
    with relay(cwd=tmp_path) as running, recording("run.mcap", cwd=tmp_path) as process:
        running.signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert said.splitlines()[-1] == "triorelay: the relay at unix:server_socket.admin ended the connection"
    shown = run("show", "run.mcap", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_a_program_that_is_killed_leaves_what_it_had_flushed(tmp_path: Path) -> None:
    with relay(cwd=tmp_path), join(tmp_path, b"A") as a, recording("run.mcap", cwd=tmp_path) as process:
        a.sendall(b"A1")
        shown = ""
        while "A to A" not in shown:
            shown = run("show", "run.mcap", cwd=tmp_path).stdout
        process.kill()
        process.wait()
    shown = run("show", "run.mcap", cwd=tmp_path).stdout
    assert shown.endswith("A to A  31  1\n")
    assert "cut off" in run("show", "run.mcap", cwd=tmp_path).stderr


# -- what may be wrong


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with relay(cwd=tmp_path):
        assert_one_line(run("record", "/dev/full", cwd=tmp_path), 1, "/dev/full: No space left on device")


def test_a_disk_that_becomes_full_leaves_what_it_took(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -f 5000; exec "$@"', "sh", *command("record", "run.mcap")]
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        subprocess.Popen(limited, cwd=tmp_path, env=environment({}), stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline() == "recording to run.mcap\n"
        while process.poll() is None:
            # Noise does not compress.
            data = address_frames(ord("A"), os.urandom(20_000))
            a.sendall(data)
            left = len(data)
            while left:
                left -= len(a.recv(left))
        said = process.stderr.read().splitlines()
    assert process.returncode == 1
    shown = run("show", "run.mcap", "--json", cwd=tmp_path)
    assert shown.stderr.startswith("triorelay: run.mcap is cut off or damaged")
    frames = sum(len(json.loads(line)["data"]) // 2 for line in shown.stdout.splitlines())
    assert frames
    assert re.fullmatch(rf"recorded {frames} frames, \d+ messages, [1-9]\d* lost", said[0])
    assert said[1:] == ["triorelay: run.mcap: File too large"]


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [])
    before = (tmp_path / "run.mcap").read_bytes()
    with relay(cwd=tmp_path):
        assert_one_line(run("record", "run.mcap", cwd=tmp_path), 1, "run.mcap exists; --overwrite replaces it")
        assert (tmp_path / "run.mcap").read_bytes() == before
        assert run("record", "--for", "0", "--overwrite", "run.mcap", cwd=tmp_path).returncode == 0
        assert (tmp_path / "run.mcap").read_bytes() != before


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["record"], 2, "Missing argument 'FILE'"),
        (["record", "run.mcap"], 1, "no relay answers at unix:server_socket.admin: No such file"),
        (["record", "no/run.mcap"], 1, "no/run.mcap: No such file or directory"),
        (["show", "no.mcap"], 1, "no.mcap: No such file or directory"),
        (["show", "text"], 1, "text is no recording: it is no MCAP file"),
        (["show", "empty"], 1, "empty is no recording: it ends before it has begun"),
        (["play", "text"], 1, "text is no recording: it is no MCAP file"),
        (["play", "no.mcap"], 1, "no.mcap: No such file or directory"),
        (["play", "run.mcap"], 1, "start a relay there with: triorelay serve"),
        (["play", "run.mcap", "--speed", "0"], 2, "a speed is a number above 0"),
        (["play", "run.mcap", "--speed", "nan"], 2, "a speed is a number above 0"),
        (["play", "run.mcap", "--step", "--speed", "2"], 2, "--step waits for Enter"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)
def test_what_may_be_wrong_is_one_line(tmp_path: Path, words: list[str], code: int, complaint: str) -> None:
    (tmp_path / "text").write_text("no recording\n")
    (tmp_path / "empty").touch()
    if words[0] == "play":
        write_recording(tmp_path / "run.mcap", [Run(1, 65, 66, b"x")])
    assert_one_line(run(*words, cwd=tmp_path), code, complaint)
    assert words[0] == "play" or not (tmp_path / "run.mcap").exists() or not (tmp_path / "run.mcap").read_bytes()


def test_without_the_package_mcap_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mcap.py").write_text("raise ImportError\n")
    result = run("show", "run.mcap", cwd=tmp_path, loaded=False)
    assert_one_line(result, 1, r"recordings need the package mcap: .*triorelay\[record\]")


def test_the_whole_entries_of_a_cut_file_are_shown(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(1, 65, 66, b"x")])
    data = (tmp_path / "run.mcap").read_bytes()
    (tmp_path / "run.mcap").write_bytes(data[:-100])
    shown = run("show", "run.mcap", cwd=tmp_path)
    assert shown.stdout.endswith("A to B  78  x\n")
    assert shown.stderr == "triorelay: run.mcap is cut off or damaged: this is what was whole of it\n"
