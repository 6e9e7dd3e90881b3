"""How a thread that is not Trio's uses what belongs to Trio's."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
import trio

from triorelay.client._turn import Turn


def in_a_run(during: Future[Turn], release: threading.Lock | None = None) -> threading.Thread:
    """Run Trio in a thread until the lock that it gets is released."""

    async def main() -> None:
        with Turn() as turn:
            lot = trio.lowlevel.ParkingLot()
            turn.lot = lot  # type: ignore[attr-defined]
            during.set_result(turn)
            await lot.park()
            if release is not None:
                turn.release_later(release)
                assert release.locked(), "released before Trio's thread has given the turn away"

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    return thread


def test_a_step_in_another_thread_wakes_a_task_and_a_lock_is_released_at_the_end_of_the_turn() -> None:
    made: Future[Turn] = Future()
    waited = threading.Lock()
    waited.acquire()
    thread = in_a_run(made, waited)
    turn = made.result(30)
    assert turn.step(lambda: turn.call_until_end(lambda is_end: None)) is False
    assert turn.step(lambda: turn.wake(turn.lot)) is None  # type: ignore[attr-defined]
    assert waited.acquire(timeout=30)
    thread.join(30)
    assert not thread.is_alive()
    assert turn.step(lambda: "after the run") == "after the run"


def test_a_signal_handler_cannot_take_a_turn_inside_a_turn() -> None:
    made: Future[Turn] = Future()
    thread = in_a_run(made)
    turn = made.result(30)
    turn.check_not_inside()
    with pytest.raises(RuntimeError, match="signal handler"):
        turn.step(turn.check_not_inside)
    turn.check_not_inside()
    turn.step(lambda: turn.wake(turn.lot))  # type: ignore[attr-defined]
    thread.join(30)
    assert not thread.is_alive()
