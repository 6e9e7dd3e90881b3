"""One random world: what its seed decides about the relay and its clients, and what is noted of what they do."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from triorelay.relay import Config, Principal, Relay

if TYPE_CHECKING:
    from tests.simulation.wires import Wire

IDS = b"ABCDEF"
BURST = ord("G")
NARROW = 3
"""Bytes that fit into a connection where each frame takes many steps: such worlds are shorter, and more of them run."""

RELAYS: dict[int, Relay] = {}
"""The relay of each world that runs, by seed; another one where it was replaced."""


@dataclass
class World:
    """What the clients did, to be held against what the relay did."""

    seed: int
    lossless: bool
    config: Config
    capacity: int
    sessions: int = len(IDS)
    running: trio.CancelScope = field(default_factory=trio.CancelScope)
    all_here: trio.Event = field(default_factory=trio.Event)
    sent: dict[tuple[int, int], bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    received: dict[tuple[int, int], list[bytearray]] = field(default_factory=lambda: defaultdict(list))
    wires: list[Wire] = field(default_factory=list)
    steps: int = 0
    finished_senders: int = 0
    left: int = 0


def make_world(seed: int) -> tuple[World, random.Random]:
    chance = random.Random(seed)
    lossless = chance.random() < 0.4
    queue_bytes = chance.choice([2, 16, 200, 65536])
    config = Config(
        overflow="wait" if lossless or chance.random() < 0.5 else "drop",
        duplicate=chance.choice(["reject", "replace"]),
        queue_bytes=queue_bytes,
        stall_timeout=0 if lossless else chance.choice([0, 0.5, 2, 10]),
        drain_timeout=0 if lossless else chance.choice([0.5, 5]),
        hold_frames=0 if lossless else chance.choice([0, 0, min(3, queue_bytes // 2)]),
        hold_time=chance.choice([0, 0.3, 3]),
        principals=() if lossless or chance.random() < 0.6 else make_policy(chance),
        share=frozenset(chance.sample(IDS, 2)) if chance.random() < 0.3 else frozenset(),
    )
    world = World(seed, lossless, config, chance.choice([3, 2, 3, 50, 4096]))
    return world, chance


def make_policy(chance: random.Random) -> tuple[Principal, ...]:
    """Two users, of which each may hold and reach some of the ids."""
    return tuple(
        Principal(
            name=f"user{uid}",
            uid=uid,
            ids=frozenset(chance.sample(IDS, 4)) | {200 + uid},
            to=frozenset(chance.sample(IDS, chance.randrange(1, 7))),
        )
        for uid in (1, 2)
    )
