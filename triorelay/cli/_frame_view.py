"""Frames and whole messages as lines: for people, with columns and color on a terminal, and for programs."""

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from ..protocol import MessageReader, id_name
from ..recording import Entry, Lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

PAIRS_KEPT = 1024
"""Pairs whose unfinished message is kept: each may take 1 MiB. With more pairs, the oldest one starts again."""
COLUMNS_BESIDES_DATA = len("00:00:00.000  0xff to 0xff  ")
"""The columns before the data in a terminal."""
ROWS_SHOWN = 16
"""Rows of data that a terminal shows for one line; after them comes the number of bytes left out."""
_ID_WIDTH = len("0xff")


def message_text(payload: bytes) -> str:
    """Return a message for people: its text where all of it is printable, and otherwise hexadecimal digits."""
    text = decoded(payload)
    return payload.hex() if text is None or not text.isprintable() else text


def decoded(payload: bytes) -> str | None:
    """Return a payload as text if it is UTF-8, else None."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def message_facts(payload: bytes) -> dict[str, object]:
    """Return the fields of a message in JSON lines: its bytes in hexadecimal, and its text if it is text."""
    text = decoded(payload)
    return {"data": payload.hex()} if text is None else {"data": payload.hex(), "text": text}


def clock(seconds: float) -> str:
    """Return the time of day, in milliseconds."""
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds * 1000) % 1000:03d}"


class FramePrinter:
    """Prints routed frames: on a terminal in columns and color, elsewhere as plain lines.

    With `messages`, it assembles the frames of each pair to messages. It reports a block that is no message: one that
    was cut or damaged, or other data.
    """

    def __init__(self, *, messages: bool = False, as_json: bool = False) -> None:
        self._messages = messages
        self._as_json = as_json
        self._console: Console | None = None
        if sys.stdout.isatty():
            from rich import console

            self._console = console.Console(highlight=False)
        self._readers: dict[tuple[int, int], MessageReader] = {}

    def print(self, entry: Entry) -> None:
        """Print an entry, as nothing, one line or several."""
        for shown in self._lines(entry):
            if isinstance(shown, str) or self._console is None:
                click.echo(shown)
            else:
                self._console.print(shown, soft_wrap=True)

    def _lines(self, entry: Entry) -> "Iterator[str | Text]":
        seconds = round(entry.time / 1e9, 6)
        if isinstance(entry, Lost):
            yield self._line(seconds, (), {"skipped": entry.frames}, f"{entry.frames} frames skipped", "yellow")
            return
        pair = entry.source, entry.destination
        if not self._messages:
            yield self._frames(seconds, pair, entry.data)
            return
        reader = self._reader(pair)
        discarded = reader.discarded
        for payload in reader.feed(entry.data):
            yield self._line(seconds, pair, message_facts(payload), message_text(payload))
        if count := reader.discarded - discarded:
            yield self._line(seconds, pair, {"discarded": count}, f"({count} not a whole message)", "yellow")

    def _reader(self, pair: tuple[int, int]) -> MessageReader:
        reader = self._readers.pop(pair, None) or MessageReader()
        if len(self._readers) >= PAIRS_KEPT:
            del self._readers[next(iter(self._readers))]
        self._readers[pair] = reader  # the newest is the last
        return reader

    def _frames(self, seconds: float, pair: tuple[int, int], data: bytes) -> "str | Text":
        if self._as_json or self._console is None:
            return self._line(seconds, pair, {"data": data.hex()}, f"{data.hex(' ')}  {_shown(data)}")
        # A byte takes two digits, a space and its character; a space parts the two columns.
        wide = max(4, min(16, (self._console.width - COLUMNS_BESIDES_DATA - 1) // 4))
        rows = [data[at : at + wide] for at in range(0, len(data), wide)]
        parts = [f"{row.hex(' '):{3 * wide}} {_shown(row)}" for row in rows[:ROWS_SHOWN]]
        if len(rows) > ROWS_SHOWN:
            parts.append(f"and {len(data) - ROWS_SHOWN * wide} bytes more")
        return self._line(seconds, pair, {}, f"\n{' ' * COLUMNS_BESIDES_DATA}".join(parts))

    def _line(
        self, seconds: float, pair: tuple[int, ...], facts: dict[str, object], what: str, style: str = ""
    ) -> "str | Text":
        """Return a line that begins with the time and the two ids, if any: with `facts` in JSON, else with `what`."""
        if self._as_json:
            ids = zip(("source", "destination"), pair, strict=False)
            return json.dumps({"time": seconds, **dict(ids), **facts})
        names = [id_name(id) for id in pair]
        if self._console is None:
            return f"{clock(seconds)} {' to '.join(names)}  {what}" if names else f"{clock(seconds)} {what}"
        from rich.text import Text

        text = Text.assemble((clock(seconds), "dim"))
        if names:
            text.append(f"  {names[0]:>{_ID_WIDTH}}", "bold cyan")
            text.append(" to ", "dim")
            text.append(f"{names[1]:{_ID_WIDTH}}", "bold green")
        return text.append("  ").append(what, style)


def _shown(data: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
