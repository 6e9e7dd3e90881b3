"""A nursery whose one error comes out bare."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from triorelay.client._bare import open_bare_nursery


async def leave_by(error: BaseException | None = None, of_task: BaseException | None = None) -> None:
    """Leave a nursery by an error of its block, of a task, or of both."""

    async def run() -> None:
        try:
            if error is not None:
                await trio.sleep_forever()
        finally:
            if of_task is not None:
                raise of_task

    async with open_bare_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        if error is not None:
            raise error
        await trio.sleep_forever()


async def test_an_error_of_the_block_comes_out_as_the_same_object() -> None:
    error = KeyError("block")
    with pytest.raises(KeyError) as caught:
        await leave_by(error)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_an_error_of_a_task_comes_out_bare_and_cancels_the_block() -> None:
    with pytest.raises(KeyError):
        await leave_by(of_task=KeyError("task"))


async def test_a_group_that_the_block_raised_stays_the_same_object() -> None:
    group = ExceptionGroup("mine", [KeyError("one")])
    with pytest.RaisesGroup(KeyError) as caught:
        await leave_by(group)
    assert caught.value is group


async def test_two_errors_stay_a_group() -> None:
    with pytest.RaisesGroup(KeyError, OSError):
        await leave_by(KeyError("block"), of_task=OSError("task"))


async def test_a_cancellation_from_outside_passes_through() -> None:
    with trio.CancelScope() as scope:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_next_to_an_error_a_cancellation_is_forgotten() -> None:
    with trio.CancelScope() as scope:
        scope.deadline = -math.inf
        with pytest.raises(KeyError):
            await leave_by(of_task=KeyError("task"))
    assert not scope.cancelled_caught


async def test_leaving_waits_for_the_tasks() -> None:
    done = []
    async with open_bare_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)

        async def finish() -> None:
            await trio.lowlevel.checkpoint()
            done.append(True)

        nursery.start_soon(finish)
    assert done
