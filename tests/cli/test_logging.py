"""Log lines: one line of ASCII an event whatever a client calls itself, as text and as JSON."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.cli._logging import (
    FIELD_LIMIT,
    FORMATTERS,
    JsonFormatter,
    TextFormatter,
    last_record,
    log_to_stderr,
    one_line,
)

HOSTILE = ["", "a\nb", "\x1b[2J", "\r", "\0", "é", "\u2028", "\N{PILE OF POO}", "\udcff", '" x="1', "\\n", "x" * 1000]


def record(message: str = "client left", **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("triorelay", logging.WARNING, __file__, 1, message, None, None)
    made.created = 1767225600.0456
    made.fields = fields
    return made


def test_text_is_time_level_message_and_facts() -> None:
    line = TextFormatter().format(record(id="A", frames=3, listening=["unix:s", "tcp:x"], share=0.5))
    assert line == '2026-01-01T00:00:00.045Z WARNING client left id=A frames=3 listening="unix:s, tcp:x" share=0.5'


def test_json_is_an_object_with_the_same() -> None:
    line = JsonFormatter().format(record(id="A", frames=3, listening=["unix:s", "tcp:x"], ok=True, nobody=None))
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.045Z",
        "level": "warning",
        "message": "client left",
        "id": "A",
        "frames": 3,
        "listening": ["unix:s", "tcp:x"],
        "ok": True,
        "nobody": None,
    }


def test_values_that_would_be_misread_are_quoted() -> None:
    fields = {"a": "", "b": "two words", "c": "k=v", "d": 'say "x"', "e": "back\\slash"}
    line = TextFormatter().format(record("m", **fields))
    assert line.endswith(r' m a="" b="two words" c="k=v" d="say \"x\"" e=back\\slash')


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("formatter", FORMATTERS.values())
def test_a_hostile_name_stays_one_line_of_ascii(formatter: type[logging.Formatter], name: str) -> None:
    assert_harmless(formatter().format(record(process=name, id="A")))


@given(st.dictionaries(st.sampled_from(["process", "path"]), st.text() | st.binary()), st.text())
def test_any_text_stays_one_line_of_ascii(fields: dict[str, object], message: str) -> None:
    for formatter in FORMATTERS.values():
        assert_harmless(formatter().format(record(message, **fields)))


def assert_harmless(line: str) -> None:
    assert line.isascii()
    assert line.isprintable()


def test_bytes_that_are_no_text_are_shown() -> None:
    assert "process=na\\udcffme" in TextFormatter().format(record(process=b"na\xffme"))
    assert json.loads(JsonFormatter().format(record(process=b"na\xffme")))["process"] == "na\\udcffme"


@pytest.mark.parametrize("value", ["x" * 1000, "\n" * 1000, "x y" * 1000, '"' * 1000])
def test_a_field_is_cut_at_256_characters(value: str) -> None:
    text = TextFormatter().format(record("m", process=value)).partition("process=")[2]
    assert len(text) == FIELD_LIMIT
    assert text.rstrip('"').endswith("...")
    assert len(json.loads(JsonFormatter().format(record("m", process=value)))["process"]) == FIELD_LIMIT


def test_each_part_of_a_list_is_cut_by_itself() -> None:
    parts = [letter * 200 for letter in "abcd"] + ["e" * 300]
    text = TextFormatter().format(record("m", listening=parts)).partition("listening=")[2]
    assert text == '"' + ", ".join([*parts[:4], "e" * 253 + "..."]) + '"'


def test_256_characters_are_not_cut() -> None:
    assert TextFormatter().format(record("m", process="x" * 256)).endswith("=" + "x" * 256)


def test_a_message_is_cut_at_1024_characters() -> None:
    assert len(one_line("x" * 5000)) == 1024
    assert len(json.loads(JsonFormatter().format(record("x" * 5000)))["message"]) == 1024


def test_a_bug_s_traceback_follows_its_line_or_stands_in_the_object() -> None:
    try:
        raise ZeroDivisionError("a\x1bbug")
    except ZeroDivisionError:
        crashed = record("session failed")
        crashed.exc_info = sys.exc_info()
    head, *trace = TextFormatter().format(crashed).splitlines()
    assert head.endswith("WARNING session failed")
    assert all(line.startswith("  ") and line.isascii() and line.isprintable() for line in trace)
    assert trace[-1] == r"  ZeroDivisionError: a\x1bbug"
    assert "ZeroDivisionError" in json.loads(JsonFormatter().format(crashed))["traceback"]


def test_a_record_of_another_logger_has_no_facts() -> None:
    plain = logging.LogRecord("other", logging.INFO, __file__, 1, "%d%%", (5,), None)
    assert TextFormatter().format(plain).endswith("INFO 5%")


class TestStandardError:
    @pytest.fixture(autouse=True)
    def log_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        logger = logging.getLogger("triorelay")
        for name in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, name, getattr(logger, name))

    def test_the_level_decides_what_is_written(self, capfd: pytest.CaptureFixture[str]) -> None:
        writer = log_to_stderr("text", "warning")
        logger = logging.getLogger("triorelay")
        logger.info("unimportant")
        logger.warning("important", extra={"fields": {"id": "A"}})
        writer.finish()
        lines = capfd.readouterr().err.splitlines()
        assert [line.partition(" ")[2] for line in lines] == ["WARNING important id=A"]

    def test_the_ledger_is_written_whatever_the_level_is(self, capfd: pytest.CaptureFixture[str]) -> None:
        facts = {"accepted": 2, "dropped.no_route": 1}
        log_to_stderr("text", "error").finish(last_record("ledger", facts))
        assert capfd.readouterr().err == "ledger accepted=2 dropped.no_route=1\n"
        log_to_stderr("json", "error").finish(last_record("ledger", facts))
        ledger = json.loads(capfd.readouterr().err)
        assert (ledger["message"], ledger["accepted"], ledger["dropped.no_route"]) == ("ledger", 2, 1)
