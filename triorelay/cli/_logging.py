"""Log lines: one ASCII line an event, for people or for machines.

A record's message is a short sentence; its facts are `record.fields`. Names come from clients and may hold anything,
so every character that is not printable ASCII is shown as an escape, and no value is longer than `FIELD_LIMIT`.
"""

import logging
import time
from collections.abc import Mapping
from typing import Literal

from ._log_writer import LogWriter

FIELD_LIMIT = 256
"""A name chosen by a client must not fill a disk or terminal."""
MESSAGE_LIMIT = 1024
"""Messages are the relay's own, but some quote the text of an error."""

Fields = Mapping[str, object]


class TextFormatter(logging.Formatter):
    """`2026-01-01T00:00:00.000Z INFO message key=value …`"""

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "is_last"):
            # For people and shell scripts: its kind, then its fields.
            return " ".join([record.getMessage(), *(f"{key}={value}" for key, value in fields_of(record).items())])
        head = f"{timestamp(record.created)} {record.levelname} {one_line(record.getMessage())}"
        line = " ".join([head, *(f"{key}={_text_value(value)}" for key, value in fields_of(record).items())])
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"  {one_line(part)}" for part in trace)])
        return line


class JsonFormatter(logging.Formatter):
    """An object a line: `time`, `level`, `message`, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        from json import dumps  # only here: most logs are text

        event: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "message": _cut(_valid(record.getMessage()), MESSAGE_LIMIT),
        }
        event |= {key: _json_value(value) for key, value in fields_of(record).items()}
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return dumps(event)


FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


def log_to_stderr(log_format: LogFormat, level: LogLevel) -> LogWriter:
    """Write what the relay logs to standard error from now on; the caller finishes the writer that it gets."""
    logger = logging.getLogger("triorelay")
    logger.setLevel(level.upper())
    logger.propagate = False
    writer = LogWriter()
    writer.setFormatter(FORMATTERS[log_format]())
    logger.handlers = [writer]
    return writer


def last_record(message: str, fields: Fields) -> logging.LogRecord:
    """Return the last line as a record, which is written at every level: the ledger, or the handover."""
    record = logging.LogRecord("triorelay", logging.INFO, __file__, 0, message, None, None)
    record.fields = fields
    record.is_last = True
    return record


def fields_of(record: logging.LogRecord) -> Fields:
    """Return the facts of an event; none for a record that was not made by the relay."""
    fields: Fields = getattr(record, "fields", {})
    return fields


def timestamp(seconds: float) -> str:
    """Return the time in UTC, to the millisecond."""
    whole, fraction = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{fraction:03d}Z"


def one_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` in printable ASCII, everything else escaped as in a Python string, cut at `limit` characters."""
    # Cutting before escaping bounds the work.
    return _cut(text[: limit + 1].encode("unicode_escape").decode("ascii"), limit)


def _text_value(value: object) -> str:
    # A list is the relay's own; a client could only make one of its parts long.
    parts = value if isinstance(value, list | tuple) else [value]
    text = ", ".join(one_line(_text_of(part), FIELD_LIMIT) for part in parts)
    if text and not any(character in text for character in ' "='):
        return text
    escaped = text.replace('"', r"\"")
    quotes = 2
    return f'"{_cut(escaped, len(parts) * FIELD_LIMIT - quotes)}"'


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_json_value(part) for part in value]
    return _cut(_valid(_text_of(value)), FIELD_LIMIT)


def _text_of(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _valid(text: str) -> str:
    """Return `text` with bytes that were not UTF-8 shown as escapes: half a surrogate pair is no valid JSON."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
