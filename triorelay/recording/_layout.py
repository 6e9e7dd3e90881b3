"""The channels of a recording, in the words of MCAP.

For each pair there is a channel of frames. Where whole messages are among them, a second one holds those that are JSON,
a third one the others. Programs find out what a channel is by its metadata; the topic is for people, and for tools that
show topics as a tree.
"""

from enum import StrEnum

from ..protocol import id_name

PROFILE = "triorelay"
"""The profile in the file's header: what says that a file is a recording of a relay."""
ABOUT = "triorelay"
"""The metadata record that is written first: what recorded, where, and what of it."""
BOOKS = "triorelay.end"
"""The metadata record that is written last: how much was kept, and how much was not."""
OCTETS = "application/octet-stream"
LOST_TOPIC = "/lost"
LOST_SCHEMA = b'{"type":"object","properties":{"frames":{"type":"integer"}}}'


class Kind(StrEnum):
    """What a channel holds."""

    FRAMES = "frames"
    MESSAGES = "messages"
    JSON = "json"
    LOST = "lost"


_ENDING = {Kind.FRAMES: "", Kind.MESSAGES: "/messages", Kind.JSON: "/json"}


def topic(source: int, destination: int, kind: Kind) -> str:
    """Return the topic of a pair's channel, such as `/A/B` or `/A/0x2f/json`."""
    return f"/{_part(source)}/{_part(destination)}{_ENDING[kind]}"


def _part(id: int) -> str:
    # Tools give a meaning to most punctuation in a topic.
    name = id_name(id)
    return name if name.isalnum() else f"0x{id:02x}"


def metadata(source: int, destination: int, kind: Kind) -> dict[str, str]:
    """Return what a channel says of itself."""
    return {"kind": kind, "source": str(source), "destination": str(destination)}
