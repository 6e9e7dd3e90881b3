"""Frames and credit for other relays: everything that a step has for one relay is one message, its bundle.

1. Pieces and credit collect during a step and leave at its end, after the flush of the outboxes. So the frames of many
   clients in one busy moment cost the engine, and the other relay, one message; and a single frame leaves at once.
2. A bundle that grows to `BUNDLE_BYTES` leaves within the step.
3. The order of pieces for one id is the order in which they were added.
4. What was dropped here in a step is told after its bundles, once for each source and destination.
"""

from ..relay import Round
from ._uplink import Uplink
from ._wire import Bundle, Credit, Dropped, Piece

HEAD_BYTES = 4096
"""What a piece may need besides its frames: tokens of at most 255 sources of at most 11 bytes, and numbers."""
PART_BYTES = 40
"""What a piece or a credit takes besides that: ids and numbers of at most 9 bytes."""
BUNDLE_BYTES = (1 << 15) + PART_BYTES
"""Bytes of a bundle: what the relay reads at once from one client. nats-server reads 64 KiB at a time, and copies a
message that is not whole in that once more: larger bundles cost it half as much again for each byte."""


class Bundles:
    """The bundles of one relay."""

    def __init__(self, uplink: Uplink, round: Round) -> None:
        self._uplink = uplink
        self._round = round
        self._open: dict[str, Bundle] = {}
        self._room: dict[str, int] = {}
        self._drops: dict[str, dict[tuple[int, int], None]] = {}

    @property
    def limit(self) -> int:
        """Bytes of data that a piece may have."""
        return self._bound() - PART_BYTES

    def _bound(self) -> int:
        engine = self._uplink.engine
        return BUNDLE_BYTES if engine is None else min(BUNDLE_BYTES, engine.max_payload - HEAD_BYTES)

    def add_piece(self, relay: str, piece: Piece, sources: dict[int, int]) -> None:
        """Send frames to another relay, with the tokens of their sources."""
        bundle = self._with_room(relay, len(piece.data) + PART_BYTES)
        bundle.pieces.append(piece)
        bundle.sources.update(sources)

    def add_credit(self, relay: str, credit: Credit) -> None:
        """Send credit to another relay."""
        self._with_room(relay, PART_BYTES).credits.append(credit)

    def add_drop(self, relay: str, source: int, destination: int) -> None:
        """Tell another relay that frames of its client `source` were dropped here."""
        if not self._drops:
            self._round.add(self)
        self._drops.setdefault(relay, {})[source, destination] = None

    def _with_room(self, relay: str, size: int) -> Bundle:
        bundle = self._open.get(relay)
        if bundle is not None and self._room[relay] < size:
            self._uplink.tell(relay, self._open.pop(relay))
            bundle = None
        if bundle is None:
            if not self._open:
                self._round.add(self)
            bundle = self._open[relay] = Bundle(self._uplink.nonce, self._uplink.connection, {}, [], [])
            self._room[relay] = self._bound()
        self._room[relay] -= size
        return bundle

    def flush(self) -> None:
        """Send what was added."""
        bundles, self._open = self._open, {}
        for relay, bundle in bundles.items():
            self._uplink.tell(relay, bundle)
        drops, self._drops = self._drops, {}
        for relay, pairs in drops.items():
            self._uplink.tell(relay, Dropped(self._uplink.nonce, list(pairs)))

    def discard(self) -> None:
        """Discard what was added, because the connection is lost."""
        self._open.clear()
        self._drops.clear()
