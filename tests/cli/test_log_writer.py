"""Writing the log without waiting for what reads it."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes
from tests.watchdog import watched
from triorelay.cli._log_writer import RECORDS, LogWriter
from triorelay.cli._logging import TextFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = 4096
"""The smallest pipe that Linux makes: about 40 lines fill it."""
MANY = 60
"""Clients that come and go: their lines fill such a pipe, and the relay's bound on such lines lets them through."""


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("triorelay", logging.INFO, __file__, 1, message, None, None)


def writer_to(descriptor: int) -> LogWriter:
    writer = LogWriter(descriptor)
    writer.setFormatter(TextFormatter())
    return writer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with room for 4 KiB."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_until(descriptor: int, end: bytes) -> list[str]:
    data = b""
    while not data.endswith(end):
        data += os.read(descriptor, 65536)
    return data.decode().splitlines()


def lost(lines: list[str]) -> int:
    return sum(int(found[1]) for line in lines if (found := re.search(r"WARNING log lines lost count=(\d+)", line)))


def test_without_a_reader_lines_are_kept_up_to_a_bound_and_the_others_are_counted(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = writer_to(descriptor)
    sent = 3 * RECORDS
    for number in range(sent):
        writer.emit(record(f"line {number}"))
    ending = threading.Thread(target=writer.finish, args=[record("the end")])
    ending.start()
    lines = read_until(reader, b"the end\n")
    ending.join()
    numbers = [int(found[1]) for line in lines if (found := re.search(r"line (\d+)", line))]
    assert numbers == sorted(set(numbers))
    assert RECORDS <= len(numbers) < sent
    assert len(numbers) + lost(lines) == sent


def test_the_last_line_is_given_up_after_a_second(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = writer_to(descriptor)
    for _ in range(RECORDS):
        writer.emit(record("x" * 100))
    # Returns though nothing reads.
    writer.finish(record("the end"))
    # The thread writes on, and must not write into a descriptor that another test has by then.
    read_until(reader, b"the end\n")


def test_a_descriptor_that_fails_fails_nothing_and_its_lines_are_counted() -> None:
    reader, descriptor = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    target = os.dup(full)
    writer = writer_to(target)
    writer.emit(record("lost"))
    while not writer.lost:
        os.sched_yield()
    os.dup2(descriptor, target)
    writer.finish(record("the end"))
    lines = read_until(reader, b"the end\n")
    assert lost(lines) == 1
    for each in (reader, descriptor, full, target):
        os.close(each)


def test_a_descriptor_that_another_process_made_non_blocking_gets_every_line(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    os.set_blocking(descriptor, False)
    writer = writer_to(descriptor)
    for number in range(RECORDS // 2):
        writer.emit(record(f"line {number}"))
    ending = threading.Thread(target=writer.finish, args=[record("the end")])
    ending.start()
    lines = read_until(reader, b"the end\n")
    ending.join()
    assert [line.split()[-1] for line in lines[:-1]] == [str(number) for number in range(RECORDS // 2)]


def test_a_thread_that_has_nothing_to_write_ends_and_the_next_line_starts_another(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = writer_to(descriptor)
    for text in ("one", "two"):
        writer.emit(record(text))
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "triorelay-log")
        assert read_until(reader, b"\n")[0].endswith(text)
        thread.join(processes.PATIENCE)
        assert not thread.is_alive()
    writer.finish(record("the end"))
    assert read_until(reader, b"the end\n")


def test_without_a_thread_lines_are_written_at_once_where_there_is_room(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    reader, descriptor = pipe
    writer = writer_to(descriptor)
    writer.emit(record("one"))
    writer.emit(record("two"))  # the pipe's only page is taken, as far as the kernel says
    read_until(reader, b"one\n")
    writer.finish(record("the end"))
    lines = read_until(reader, b"the end\n")
    assert lost(lines) == 1


def test_a_standard_error_that_nothing_reads_stops_neither_frames_nor_the_end(
    tmp_path: Path, pipe: tuple[int, int]
) -> None:
    reader, descriptor = pipe
    command = processes.command("serve", "--unix", "s")
    with watched(
        subprocess.Popen(command, cwd=tmp_path, env=processes.environment({}), stderr=descriptor, pipesize=SMALL)
    ) as process:
        said = b""
        while b"INFO ready" not in said:
            said += os.read(reader, 65536)
        for _ in range(MANY):
            with connected(tmp_path / "s", b"A\x81") as client:
                assert client.recv(2, socket.MSG_WAITALL) == b"A\0"
        with connected(tmp_path / "s", b"A\x81") as client:
            assert client.recv(2, socket.MSG_WAITALL) == b"A\0"
            client.sendall(b"A1")
            assert client.recv(2, socket.MSG_WAITALL) == b"A1"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def connected(path: Path, hello: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(processes.PATIENCE)
    client.connect(str(path))
    client.sendall(hello)
    return client
