"""The relay in memory that a user's own tests start."""

import subprocess
import sys
from textwrap import dedent

import pytest
import trio

import triorelay
import triorelay.testing
from triorelay.relay import Relay


def assert_balanced(relay: Relay) -> None:
    ledger = relay.ledger
    assert sum(ledger.accepted) == ledger.written + relay.exchange.queued_frames() + sum(ledger.dropped.values())


def test_its_own_example_runs_as_it_stands() -> None:
    lines = (triorelay.testing.__doc__ or "").splitlines(keepends=True)
    example = dedent("".join(line for line in lines if line.startswith("    ") or line.isspace()))
    program = f"{example}\nimport trio\ntrio.run(test_it, None)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_two_clients_talk_under_a_clock_that_jumps(autojump_clock: trio.testing.MockClock) -> None:
    async with triorelay.testing.open_relay() as memory:
        async with memory.open_client("A") as a, memory.open_client("B") as b:
            await trio.sleep(1000)
            await a.send("B", b"1")
            await b.send("A", b"2")
            assert await b.receive() == ("A", b"1")
            assert await a.receive() == ("B", b"2")
        assert_balanced(memory.relay)


async def test_a_bare_connection_needs_no_hello_with_a_bound_id(autojump_clock: trio.testing.MockClock) -> None:
    async with triorelay.testing.open_relay() as memory, memory.open_client("B") as b:
        stream = memory.connect("A")
        await stream.send_all(b"B1")
        assert await b.receive() == ("A", b"1")
        await b.send("A", b"2")
        assert await stream.receive_some() == b"B2"
        await stream.aclose()


async def test_a_destination_that_takes_nothing_is_closed_by_the_stall_rule(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = triorelay.Config(stall_timeout=10)
    async with triorelay.testing.open_relay(config, capacity=16) as memory, memory.open_client("A") as a:
        stalled = memory.connect("B")
        await a.wait_for("B")
        started = trio.current_time()
        await a.send("B", bytes(200_000))
        await a.flush()
        assert 10 <= trio.current_time() - started <= 12
        assert "B" not in a.peers
        await stalled.aclose()
        assert_balanced(memory.relay)


async def test_no_connection_after_the_end() -> None:
    async with triorelay.testing.open_relay() as memory:
        pass
    with pytest.raises(ConnectionRefusedError):
        memory.connect("A")


async def test_an_error_leaves_the_block_bare() -> None:
    with pytest.raises(triorelay.HelloRefused):
        async with triorelay.testing.open_relay() as memory, memory.open_client("A"), memory.open_client("A"):
            pass


@pytest.mark.parametrize(
    ("capacity", "error", "text"),
    [
        (1, ValueError, "capacity must be at least 2, not 1"),
        ("9", TypeError, "capacity must be a whole number, not '9'"),
    ],
)
async def test_a_connection_that_does_not_hold_the_answer_to_a_hello_is_refused(
    capacity: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await triorelay.testing.open_relay(capacity=capacity).__aenter__()
