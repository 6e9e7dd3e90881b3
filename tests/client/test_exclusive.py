"""Work that one task at a time may do."""

from __future__ import annotations

import pytest
import trio

from triorelay.client._exclusive import Exclusive


def test_a_second_task_gets_an_error_that_says_what_to_do_instead() -> None:
    work = Exclusive("another task works; wait for it")
    with work, pytest.raises(trio.BusyResourceError, match="wait for it"), work:
        pass


def test_it_is_free_again_after_an_error() -> None:
    work = Exclusive("busy")
    with pytest.raises(KeyError), work:
        raise KeyError
    with work:
        pass
