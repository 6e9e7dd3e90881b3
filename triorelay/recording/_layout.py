"""The channels of a recording, in the words of MCAP.

Each pair has a channel of frames. If there are whole messages among them, a second channel holds those that are JSON, a
third one the others. Programs recognize a channel by its metadata; the topic is for people, and for tools that show
topics as a tree.
"""

from enum import StrEnum

from ..protocol import id_name

PROFILE = "triorelay"
"""The profile in the file's header: it marks a file as a recording of a relay."""
ABOUT = "triorelay"
"""The metadata record that is written first: the program, the relay, and the filter."""
BOOKS = "triorelay.end"
"""The metadata record that is written last: how many frames were kept, and how many were lost."""
OCTETS = "application/octet-stream"
LOST_SCHEMA = b'{"type":"object","properties":{"frames":{"type":"integer"}}}'


class Kind(StrEnum):
    """The contents of a channel."""

    FRAMES = "frames"
    MESSAGES = "messages"
    JSON = "json"
    LOST = "lost"


_ENDING = {Kind.FRAMES: "", Kind.MESSAGES: "/messages", Kind.JSON: "/json"}


def topic(source: int, destination: int, kind: Kind) -> str:
    """Return the topic of a channel, such as `/A/B` or `/A/0x2f/json`; that of lost frames is of no pair."""
    return "/lost" if kind is Kind.LOST else f"/{_part(source)}/{_part(destination)}{_ENDING[kind]}"


def _part(id: int) -> str:
    # Tools give a meaning to most punctuation in a topic.
    name = id_name(id)
    return name if name.isalnum() else f"0x{id:02x}"


def metadata(source: int, destination: int, kind: Kind) -> dict[str, str]:
    """Return the metadata of a channel."""
    return (
        {"kind": kind} if kind is Kind.LOST else {"kind": kind, "source": str(source), "destination": str(destination)}
    )
