"""How a command that Ctrl-C may interrupt runs its work under Trio."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` and return what it returns.

    Raises:
        KeyboardInterrupt: on SIGINT, at a checkpoint, like a cancellation. Anywhere else it could strike between the
            making of a coroutine and its start, or in the middle of a step that must not be cut in two.
    """
    import trio

    return trio.run(work, restrict_keyboard_interrupt_to_checkpoints=True)
