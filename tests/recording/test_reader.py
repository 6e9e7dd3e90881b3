"""From a file back to what was routed, whatever has become of the file."""

from __future__ import annotations

import io
import random
import tracemalloc

import lz4.frame
import pytest
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Chunk, Header
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from tests.recording.test_writer import ENTRIES, recorded
from triorelay.recording import Run
from triorelay.recording._reader import RECORD_LIMIT, NoRecording, RecordingReader
from triorelay.recording._writer import RecordingWriter


def test_what_was_written_comes_back_in_its_order() -> None:
    reader = RecordingReader(recorded(ENTRIES))
    assert list(reader.entries()) == ENTRIES
    assert (reader.whole, reader.about) == (True, {"relay": "unix:here"})


def test_all_whole_entries_of_a_cut_file_come_back() -> None:
    file = io.BytesIO()
    writer = RecordingWriter(file, {}, "test")
    ends = []
    for entry in ENTRIES:
        writer.add(entry)
        writer.flush()
        ends.append(file.tell())
    writer.finish()
    data = file.getvalue()
    for cut in range(len(data)):
        try:
            reader = RecordingReader(io.BytesIO(data[:cut]))
        except NoRecording:
            assert cut < 60
            continue
        found = list(reader.entries())
        assert found == ENTRIES[: len(found)]
        assert len(found) >= sum(end <= cut for end in ends)
        assert not reader.whole


def test_a_damaged_file_gives_only_what_was_recorded() -> None:
    data, chance = recorded(ENTRIES * 50).getvalue(), random.Random(1)
    told = 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(20, len(data))] ^= 1 << chance.randrange(8)
        try:
            reader = RecordingReader(io.BytesIO(bytes(damaged)))
        except NoRecording:
            continue
        entries = list(reader.entries())
        assert entries == (ENTRIES * 50)[: len(entries)]
        told += not reader.whole
    # The other bits are in the index, which is not read.
    assert told > 30


def test_a_length_that_is_overwritten_ends_the_recording() -> None:
    data = recorded(ENTRIES * 5).getvalue()
    for place in range(60, len(data) - 8):
        damaged = data[:place] + b"\xff" * 8 + data[place + 8 :]
        reader = RecordingReader(io.BytesIO(damaged))
        entries = list(reader.entries())
        assert entries == (ENTRIES * 5)[: len(entries)]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_chunk_that_unpacks_to_more_than_it_says_is_not_unpacked(compression: str) -> None:
    large = bytes(RECORD_LIMIT + 1)
    data = zstandard.compress(large) if compression == "zstd" else lz4.frame.compress(large)
    builder = RecordBuilder()
    Header(profile="triorelay", library="test").write(builder)
    Chunk(compression, data, 0, 0, 0, 100).write(builder)
    file = io.BytesIO(MCAP0_MAGIC + builder.end())
    del large
    tracemalloc.start()
    reader = RecordingReader(file)
    assert list(reader.entries()) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not reader.whole
    assert peak < RECORD_LIMIT / 2


def test_a_recording_that_was_packed_anew_with_lz4_is_read() -> None:
    file = io.BytesIO()
    writer = Writer(file, compression=CompressionType.LZ4)
    writer.start("triorelay", "test")
    channel = writer.register_channel("/A/B", "", 0, {"kind": "frames", "source": "65", "destination": "66"})
    writer.add_message(channel, 5, b"hi", 5)
    writer.finish()
    file.seek(0)
    assert list(RecordingReader(file).entries()) == [Run(5, 65, 66, b"hi")]


def test_entries_of_a_long_recording_are_read_chunk_by_chunk() -> None:
    entries = [Run(number, 1 + number % 255, 66, bytes(100)) for number in range(30_000)]
    file = recorded([*entries])
    reader = RecordingReader(file)
    iterator = reader.entries()
    assert next(iterator) == entries[0]
    assert file.tell() < len(file.getvalue()) / 2
    rest = list(iterator)
    assert rest == entries[1:]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no recording: it ends"),
        (b"PK\x03\x04 a zip file of some kind", "no recording: it is no MCAP file"),
        (recorded([]).getvalue()[:12], "no recording: it ends"),
    ],
)
def test_a_file_that_is_no_recording_is_recognized(data: bytes, complaint: str) -> None:
    with pytest.raises(NoRecording, match=complaint):
        RecordingReader(io.BytesIO(data))


def test_an_mcap_file_of_another_program_is_recognized() -> None:
    file = io.BytesIO()
    writer = Writer(file)
    writer.start("ros2", "something else")
    writer.finish()
    file.seek(0)
    with pytest.raises(NoRecording, match="an MCAP file, but no recording of a relay"):
        RecordingReader(file)
