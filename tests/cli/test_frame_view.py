"""Frames and messages as lines, and what a terminal makes of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import relay
from tests.cli.terminal import in_terminal
from tests.cli.test_admin import join
from triorelay.cli._frame_view import PAIRS_KEPT, FramePrinter, message_facts, message_text
from triorelay.protocol import encode_message
from triorelay.recording import Lost, Run

if TYPE_CHECKING:
    from pathlib import Path


def run(data: bytes, source: int = 65, destination: int = 66) -> Run:
    return Run(1_500_000_000, source, destination, data)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", ""),
        (b"two words", "two words"),
        ("gr\u00fc\u00df".encode(), "gr\u00fc\u00df"),
        (b"\n", "0a"),
        (b"\x1b[2J", "1b5b324a"),
        (b"\xff", "ff"),
    ],
)
def test_a_message_is_text_where_all_of_it_is_printable_and_else_hex(payload: bytes, text: str) -> None:
    assert message_text(payload) == text


def test_json_has_the_text_of_every_payload_that_is_text() -> None:
    assert message_facts(b"a\n") == {"data": "610a", "text": "a\n"}
    assert message_facts(b"\xff") == {"data": "ff"}


def test_messages_of_each_pair_are_put_together_whatever_comes_between(capsys: pytest.CaptureFixture[str]) -> None:
    printer = FramePrinter(messages=True)
    one, two = encode_message(b"one"), encode_message(b"two")
    for data, source in ((one[:2], 65), (two[:4], 67), (one[2:], 65), (two[4:], 67)):
        printer.print(run(data, source))
    assert [line[13:] for line in capsys.readouterr().out.splitlines()] == ["A to B  one", "C to B  two"]


def test_skipped_frames_are_reported_and_a_message_that_they_cut_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = FramePrinter(messages=True)
    whole = encode_message(b"whole")
    printer.print(run(whole[:3]))
    printer.print(Lost(1_500_000_000, 1))
    printer.print(run(whole[4:] + whole))
    lines = [line[13:] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["1 frames skipped", "A to B  whole", "A to B  (1 not a whole message)"]


def test_unfinished_messages_of_only_so_many_pairs_are_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    printer = FramePrinter(messages=True)
    whole = encode_message(b"whole")
    pairs = [(1 + number // 255, 1 + number % 255) for number in range(PAIRS_KEPT + 1)]
    for source, destination in pairs:
        printer.print(run(whole[:3], source, destination))
    for source, destination in (pairs[1], pairs[0]):
        printer.print(run(whole[3:], source, destination))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  whole")
    assert second.endswith("  (1 not a whole message)")


def test_on_a_terminal_monitor_aligns_and_colors_and_breaks_long_data(tmp_path: Path) -> None:
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        join(tmp_path, b"\xff"),
        in_terminal("monitor", "--from", "A", cwd=tmp_path, columns=80) as terminal,
    ):
        # Nothing says when it looks, so frames are sent until one is seen.
        while not terminal.waits(0.1):
            a.sendall(b"\xff!")
        terminal.until(r"\n")
        a.sendall(b"".join(b"\xff" + bytes((byte,)) for byte in range(0x41, 0x41 + 26)))
        shown = terminal.until(r"Z\s")
        assert "\x1b[1;36m" in terminal.styled
    lines = [line.rstrip() for line in shown.splitlines()]
    assert {line.index("to 0xff") for line in lines if "to 0xff" in line} == {len("00:00:00.000     A ")}
    first = next(line for line in lines if " 41 42 " in line)
    row = re.search(r"to 0xff  ((?:[0-9a-f]{2} )+) +([A-Z]+)$", first)
    assert row is not None
    assert len(row[1].split()) == len(row[2]) < 26
    assert max(map(len, lines)) <= 80


def test_on_a_terminal_much_data_is_cut_and_says_so(tmp_path: Path) -> None:
    with (
        relay(cwd=tmp_path),
        join(tmp_path, b"A") as a,
        in_terminal("monitor", cwd=tmp_path, columns=120) as terminal,
    ):
        while not terminal.waits(0.1):
            a.sendall(b"B!")
        terminal.until(r"\n")
        a.sendall(b"B." * 3000)
        terminal.until(r"and \d+ bytes more")
