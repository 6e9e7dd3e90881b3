"""Where every accepted frame went.

At every checkpoint `accepted + copied = written + queued + sum(dropped)`: a frame that goes to k sessions is accepted
once, copied k - 1 times, and each copy is written or dropped on its own. The ledger keeps only what cannot be derived:
accepted and control frames by source, written frames by pair, drops by pair and reason. Queued frames are counted in
the queues themselves, so the sum is a real check. Counters belong to ids and outlive sessions.

Source 0 stands for observers among the accepted and the dropped, and for the relay itself among the written; the
relay's own frames count nowhere.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from ..protocol import DropReason


def open_counts(counts: list[int], source: int) -> None:
    """Make room in `counts` for the sources up to this one: for all of them it would be 2 KiB for each client."""
    counts.extend([0] * (source + 1 - len(counts)))


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The counters of one relay, in frames; `waited` holds the seconds that each id has waited for others, up to now
    or to where it began to wait.
    """

    accepted: list[int] = field(default_factory=lambda: [0] * 256)
    waited: list[float] = field(default_factory=lambda: [0.0] * 256)
    copied: int = 0
    control: int = 0
    partial: int = 0
    forwarded: int = 0
    imported: int = 0
    dropped: dict[tuple[int, int, DropReason], int] = field(default_factory=dict)
    """By source, destination and reason."""
    by_destination: dict[int, list[int]] = field(default_factory=dict)
    """Written frames, by destination and then by source, up to the highest source that was counted."""

    def written_to(self, destination: int) -> list[int]:
        """Return the live counters of frames written to `destination`; `open_counts` comes before a higher source."""
        return self.by_destination.setdefault(destination, [])

    def pairs(self) -> list[tuple[int, int, int]]:
        """Return (source, destination, frames written) for each pair that has any."""
        return [
            (source, destination, count)
            for destination, counts in sorted(self.by_destination.items())
            for source, count in enumerate(counts)
            if count and source
        ]

    @property
    def written(self) -> int:
        return sum(map(self.received, self.by_destination))

    def received(self, id: int) -> int:
        """Return how many frames of other clients were written to `id`."""
        counts = self.by_destination.get(id)
        return sum(counts) - counts[0] if counts else 0

    def capture(self) -> "Ledger":
        """Return a copy."""
        written = {destination: list(counts) for destination, counts in self.by_destination.items() if counts}
        return replace(
            self,
            accepted=list(self.accepted),
            waited=list(self.waited),
            dropped=dict(self.dropped),
            by_destination=written,
        )

    def restore(self, state: "Ledger") -> None:
        """Continue from `state`. The lists stay the same objects, because outboxes and sessions count in them."""
        self.accepted[:] = state.accepted
        self.waited[:] = state.waited
        self.copied, self.control, self.partial = state.copied, state.control, state.partial
        self.forwarded, self.imported = state.forwarded, state.imported
        self.dropped.update(state.dropped)
        for destination, counts in state.by_destination.items():
            self.written_to(destination)[:] = counts

    def dropped_by_reason(self) -> dict[DropReason, int]:
        """Return how many frames were dropped for each reason that there was, in the order of the reasons."""
        sums = Counter[DropReason]()
        for (_, _, reason), count in self.dropped.items():
            sums[reason] += count
        return {reason: sums[reason] for reason in DropReason if reason in sums}

    def summary(self, queued: int) -> dict[str, object]:
        """Return the ledger as the status shows it.

        Args:
            queued: frames in queues, paused or held, counted by the caller from what is there.
        """
        return {
            "accepted": sum(self.accepted),
            "copied": self.copied,
            "written": self.written,
            "queued": queued,
            "control": self.control,
            "partial": self.partial,
            "forwarded": self.forwarded,
            "imported": self.imported,
            "dropped": {reason.value: count for reason, count in self.dropped_by_reason().items()},
        }
