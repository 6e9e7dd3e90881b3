"""A nursery whose one error comes out as it is, not inside an ExceptionGroup.

1. Trio's nursery wraps every exception that ends it into one group, a single one too, and has by then taken out each
   Cancelled that was meant for it. The rest was raised by the block or by a task, or belongs to an outer scope.
2. One layer is taken off, never more: a group that the block itself raised is the block's error, and stays whole.
3. Next to a real error a Cancelled is dropped; Trio allows that. Two real errors stay a group.
4. The error is raised outside the `except`, so that the group does not become its context.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_bare_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery; leaving it raises the one error of its block and its tasks bare."""
    of_block: BaseException | None = None
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as raised:
                of_block = raised
                raise
    except BaseExceptionGroup as group:
        error = _unwrapped(group, of_block)
    if error is not None:
        try:
            raise error
        finally:
            del error, of_block


def _unwrapped(group: BaseExceptionGroup[BaseException], of_block: BaseException | None) -> BaseException:
    errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    if not errors:
        return group.exceptions[0]
    if len(errors) > 1:
        return group
    # A group without a Cancelled in it comes out of the nursery as a copy.
    return of_block if isinstance(of_block, ExceptionGroup) else errors[0]
