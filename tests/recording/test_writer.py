"""Recordings as other programs see them: the package mcap opens them as it opens any file."""

from __future__ import annotations

import io
import json

from mcap.reader import make_reader

from triorelay.protocol import encode_message
from triorelay.recording import Entry, Lost, Run
from triorelay.recording._writer import RecordingWriter

MESSAGES = b"\0" + encode_message(b'{"temperature": 21.5}') + encode_message(b"plain")
ENTRIES: list[Entry] = [
    Run(1_000, 65, 66, b"\x00\x01\xff"),
    Run(2_000, 66, 65, b"back"),
    Lost(2_500, 7),
    Run(3_000, 65, 66, MESSAGES),
    Run(4_000, 0x2F, 0, b"!"),
]


def recorded(entries: list[Entry]) -> io.BytesIO:
    file = io.BytesIO()
    writer = RecordingWriter(file, {"relay": "unix:here"}, "test 1")
    for entry in entries:
        writer.add(entry)
    writer.finish()
    file.seek(0)
    return file


def test_each_pair_has_a_channel_of_frames_with_their_times() -> None:
    topics = ["/A/B", "/B/A", "/0x2f/0x00"]
    messages = list(make_reader(recorded(ENTRIES), validate_crcs=True).iter_messages(topics=topics))
    assert [(channel.topic, message.log_time, message.data) for _, channel, message in messages] == [
        ("/A/B", 1_000, b"\x00\x01\xff"),
        ("/B/A", 2_000, b"back"),
        ("/A/B", 3_000, MESSAGES),
        ("/0x2f/0x00", 4_000, b"!"),
    ]
    assert messages[0][1].metadata == {"kind": "frames", "source": "65", "destination": "66"}
    assert [message.sequence for _, channel, message in messages if channel.topic == "/A/B"] == [1, 2]


def test_a_message_in_json_is_json_with_a_schema() -> None:
    ((schema, channel, message),) = make_reader(recorded(ENTRIES)).iter_messages(topics=["/A/B/json"])
    assert (channel.message_encoding, message.data, message.log_time) == ("json", b'{"temperature": 21.5}', 3_000)
    assert schema is not None
    assert schema.encoding == "jsonschema"
    assert json.loads(schema.data)["properties"] == {"temperature": {"type": "number"}}


def test_another_message_is_kept_whole_as_it_is() -> None:
    ((_, channel, message),) = make_reader(recorded(ENTRIES)).iter_messages(topics=["/A/B/messages"])
    assert (channel.message_encoding, message.data) == ("application/octet-stream", b"plain")


def test_what_could_not_be_kept_is_counted_where_it_is_missing_and_in_the_books() -> None:
    reader = make_reader(recorded(ENTRIES))
    ((_, _, message),) = reader.iter_messages(topics=["/lost"])
    assert (message.log_time, json.loads(message.data)) == (2_500, {"frames": 7})
    books = {record.name: record.metadata for record in reader.iter_metadata()}
    assert books["triorelay"] == {"relay": "unix:here"}
    assert books["triorelay.end"] == {"frames": str(3 + 4 + len(MESSAGES) + 1), "messages": "2", "lost": "7"}


def test_the_index_counts_the_messages_of_each_channel() -> None:
    summary = make_reader(recorded(ENTRIES)).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    topics = {channel.topic: summary.statistics.channel_message_counts[id] for id, channel in summary.channels.items()}
    assert topics == {"/A/B": 2, "/B/A": 1, "/lost": 1, "/A/B/json": 1, "/A/B/messages": 1, "/0x2f/0x00": 1}


def test_a_recording_of_nothing_is_a_recording() -> None:
    summary = make_reader(recorded([])).get_summary()
    assert summary is not None
    assert summary.channels == {}
