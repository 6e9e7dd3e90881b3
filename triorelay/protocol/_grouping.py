"""The compiled way of `_frames` for large or mixed chunks: loops over machine numbers.

1. Interpreted, these loops would be ten times slower than those of `_frames`. So nothing calls them then, and the
   package that they need (librt) need not be installed.
2. A chunk for one destination is readdressed eight bytes at a time: the destination's byte differs from the source's by
   the same bits in every frame. The first frame for another destination ends that.
3. A mixed chunk is sorted by counting: one pass counts each destination's bytes, one puts each frame into its place.
4. The data bytes of a run of frames with one id are taken out eight at a time.
"""

from typing import TYPE_CHECKING, Final

from .._build import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64, u8  # noqa: TC004  (compiled they are types of the machine, interpreted not used)
if COMPILED:
    from librt.strings import BytesWriter, read_i64_le, write_i64_le
    from librt.vecs import vec

_NONE_YET: Final = [0] * 256


def readdress(frames: bytes, source: int) -> bytes:
    """Return `frames`, all for one destination, as it receives them; nothing if they are for several or none."""
    size: i64 = len(frames)
    if size == 0:
        return b""
    destination: i64 = frames[0]
    name: i64 = source
    same: i64 = destination | destination << 16 | destination << 32 | destination << 48
    change: i64 = same ^ (name | name << 16 | name << 32 | name << 48)
    received = BytesWriter()
    whole: i64 = size & ~7
    at: i64 = 0
    while at < whole:
        four: i64 = read_i64_le(frames, at)
        if (four ^ same) & 0x00FF00FF00FF00FF:
            return b""
        write_i64_le(received, four ^ change)
        at += 8
    while at < size:
        if frames[at] != destination:
            return b""
        received.append(source)
        received.append(frames[at + 1])
        at += 2
    return received.getvalue()


def regroup(frames: bytes, source: int) -> list[tuple[int, bytes | bytearray]]:
    """Do what `_frames.regroup` does."""
    size: i64 = len(frames)
    places = vec[i64](_NONE_YET)
    order: list[int] = []
    destination: i64
    count: i64
    at: i64 = 0
    while at < size:
        destination = frames[at]
        count = places[destination]
        if count == 0:
            order.append(destination)
        places[destination] = count + 2
        at += 2
    at = 0
    for each in order:
        destination = each
        count = places[destination]
        places[destination] = at
        at += count
    received = BytesWriter()
    received.write(frames)
    name: u8 = u8(source)
    at = 0
    while at < size:
        destination = frames[at]
        place: i64 = places[destination]
        received[place] = name
        received[place + 1] = u8(frames[at + 1])
        places[destination] = place + 2
        at += 2
    whole = received.getvalue()
    pieces: list[tuple[int, bytes | bytearray]] = []
    at = 0
    for each in order:
        end: i64 = places[each]
        pieces.append((each, whole[at:end]))
        at = end
    return pieces


def runs(frames: bytes) -> list[tuple[int, bytes]]:
    """Do what `_frames.runs` does."""
    found: list[tuple[int, bytes]] = []
    size: i64 = len(frames)
    at: i64 = 0
    while at < size:
        id: i64 = frames[at]
        ids: i64 = id | id << 16 | id << 32 | id << 48
        data = BytesWriter()
        while at + 16 <= size:
            four: i64 = read_i64_le(frames, at)
            last: i64 = read_i64_le(frames, at + 8)
            if ((four ^ ids) | (last ^ ids)) & 0x00FF00FF00FF00FF:
                break
            four = four >> 8 & 0x00FF00FF00FF00FF
            four = (four | four >> 8) & 0x0000FFFF0000FFFF
            last = last >> 8 & 0x00FF00FF00FF00FF
            last = (last | last >> 8) & 0x0000FFFF0000FFFF
            write_i64_le(data, ((four | four >> 16) & 0xFFFFFFFF) | (last | last >> 16) << 32)
            at += 16
        while at < size and frames[at] == id:
            data.append(u8(frames[at + 1]))
            at += 2
        found.append((id, data.getvalue()))
    return found


def source_counts(ids: bytes) -> list[tuple[int, int]]:
    """Do what `_frames.source_counts` does."""
    counts = vec[i64](_NONE_YET)
    size: i64 = len(ids)
    id: i64
    at: i64 = 0
    while at < size:
        id = ids[at]
        counts[id] = counts[id] + 1
        at += 1
    found: list[tuple[int, int]] = []
    id = 0
    while id < 256:
        if counts[id] > 0:
            found.append((id, counts[id]))
        id += 1
    return found
