"""Parameter types of commands: what is typed, and what a mistake gets."""

from __future__ import annotations

import click
import pytest

from triorelay.cli._options import ADDRESS, ID
from triorelay.protocol import Address, TcpAddress, UnixAddress


@click.command()
@click.option("-i", "id", type=ID)
@click.option("-r", "relay", type=ADDRESS, default="unix:server_socket")
def command(id: int | None, relay: Address) -> tuple[int | None, Address]:
    """Give back what was typed."""
    return id, relay


def typed(*words: str) -> object:
    return command.main(words, prog_name="command", standalone_mode=False)


def test_ids_and_addresses_are_parsed() -> None:
    assert typed("-i", "A", "-r", "tcp:localhost:9734") == (65, TcpAddress("localhost", 9734))
    assert typed("-i", "0x80") == (128, UnixAddress("server_socket"))


def test_what_is_not_given_is_not_parsed() -> None:
    assert typed() == (None, UnixAddress("server_socket"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["-i", "AB"], "Invalid value for '-i': an id is one printable"), (["-r", "localhost:x"], "a port is a number")],
)
def test_a_mistake_is_wrong_usage_in_the_parser_s_words(words: list[str], complaint: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        typed(*words)
    assert complaint in caught.value.format_message()


def test_the_help_shows_what_stands_for_the_value() -> None:
    help_text = command.get_help(click.Context(command))
    assert "-i ID" in help_text
    assert "-r ADDRESS" in help_text
