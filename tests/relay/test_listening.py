"""The table of the sockets that this process listens on."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from triorelay.relay._listening import Listening, ListeningSocket

THREADS = 4
SOCKETS = 100


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads that take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_sockets_that_threads_note_at_the_same_time_are_all_there() -> None:
    """Paths that are lost together are listened at again by a thread each; a successor gets every one of them."""
    listening, start = Listening(), threading.Barrier(THREADS)
    with ExitStack() as stack:
        sockets = [[stack.enter_context(socket.socket()) for _ in range(SOCKETS)] for _ in range(THREADS)]

        def note(mine: list[socket.socket]) -> None:
            start.wait()
            for sock in mine:
                listening.note(ListeningSocket(sock, b""))

        threads = [threading.Thread(target=note, args=(mine,)) for mine in sockets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {noted.socket for noted in listening} == {sock for mine in sockets for sock in mine}


def test_a_socket_that_is_closed_does_not_listen_any_more() -> None:
    listening = Listening()
    with socket.socket() as sock:
        listening.note(ListeningSocket(sock, b""))
        assert [noted.socket for noted in listening] == [sock]
    assert list(listening) == []


def test_of_two_sockets_at_a_path_a_successor_gets_the_one_that_the_path_leads_to() -> None:
    """A thread listens again at a lost path, and notes that before the old socket is closed."""
    listening = Listening()
    with socket.socket() as another, socket.socket() as before, socket.socket() as after:
        listening.note(ListeningSocket(another, b"/another", (1, 2)))
        listening.note(ListeningSocket(before, b"/path", (3, 4)))
        listening.note(ListeningSocket(after, b"/path", (5, 6)))
        assert {noted.socket for noted in listening} == {another, after}
