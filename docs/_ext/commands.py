"""Writes the reference of commands and settings from the commands themselves, while Sphinx reads the pages.

A page says where by a line of its own: `% commands` for every command with its options, `% settings` for the table of
the settings of `serve`. What is written there is Markdown, so that it becomes HTML and a man page alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from triorelay.cli._main import COMMANDS, load, triorelay
from triorelay.cli._settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx


def commands() -> str:
    """Every command: how it is called, what it does, its options."""
    return "\n".join(line for name in COMMANDS for line in _command(name))


def _command(name: str) -> Iterator[str]:
    parent = click.Context(triorelay, info_name="triorelay", **triorelay.context_settings)
    command = load(name)
    context = click.Context(command, info_name=name, parent=parent)
    yield f"(triorelay-{name})=\n\n## triorelay {name}\n"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield from _prose(command.help or "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            flags, text = record
            yield f"`{flags}`\n: {_plain(text)}\n"
    yield from _prose(command.epilog or "")


def _prose(text: str) -> Iterator[str]:
    """Paragraphs, and as they are those that click leaves as they are: examples."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.lstrip(" ").startswith("\b"):
            lines = paragraph.splitlines()[1:]
            if lines and lines[0].endswith(":"):
                yield f"{lines.pop(0)}\n"
            yield "```sh\n" + "\n".join(line.strip() for line in lines) + "\n```\n"
        elif paragraph:
            yield f"{_plain(paragraph)}\n"


def _plain(text: str) -> str:
    """Text of the terminal as Markdown: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", re.sub(r"\s+", " ", text).strip()).replace("--", "\\--")


def settings() -> str:
    """The table of settings: key of the file, option, variable, default, meaning."""
    rows = ["| key of the file | on the command line | default | meaning |", "|---|---|---|---|"]
    for field in OPTIONS:
        value = " \\| ".join(field.choices) or field.metavar.replace("|", "\\|")
        option = f"{field.flag} {value}".strip()
        rows.append(f"| `{field.key}` | `{option}` | {_default(field.default)} | {_plain(field.help)} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    if value is None or value == ():
        return ""
    if value is False:
        return "off"
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    del app, docname
    for marker, write in (("% commands", commands), ("% settings", settings)):
        before, found, after = source[0].partition(f"\n{marker}\n")
        if found:
            source[0] = f"{before}\n{write()}\n{after}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Join the build."""
    app.connect("source-read", _fill_in)
    return {"parallel_read_safe": True}
