"""A Trio client in a thread of its own, and what other threads do with it; `triorelay.blocking` is the public side.

1. The calling thread itself does what need not wait, in its turn (`_turn`). All else is a task in Trio's thread, for
   which the calling thread waits.
2. Of two calls one after the other, the first has had its effect, or has none, before the second begins: a call that is
   interrupted is cancelled, and waited for.
"""

import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from time import monotonic
from typing import Generic, TypeVar

import trio

from ._bare import open_bare_nursery
from ._client import Client
from ._inbox import Receiver
from ._turn import Turn

_T = TypeVar("_T")
_R = TypeVar("_R")


class Loop:
    """A thread that runs Trio, and does there what other threads ask for."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self._opening = opening
        self._opened: Future[Client] = Future()
        self._ended: Future[None] = Future()
        self._closing = False
        self._process = os.getpid()
        self.turn: Turn
        self._thread = threading.Thread(target=self._run, name="triorelay", daemon=True)
        self._thread.start()
        self.client: Client = self._opened.result()

    def _run(self) -> None:
        try:
            self._ended.set_result(trio.run(self._main))
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            self._ended.set_exception(error)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._close = trio.Event()
        with Turn() as self.turn:
            async with self._opening() as client, open_bare_nursery() as self._nursery:
                self._opened.set_result(client)
                try:
                    await self._close.wait()
                finally:
                    self._close.set()  # also where a task has ended the loop, as by SystemExit
                self._nursery.cancel_scope.cancel()

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` if the client was closed, RuntimeError where it cannot be used."""
        if self._process != os.getpid():
            raise RuntimeError("this client belongs to the process that has forked; connect() in this one")
        self.turn.check_not_inside()
        if self._closing:
            raise _closed()

    def do(
        self, work: Callable[[], Awaitable[_T]], timeout: float | None = None, at_once: Callable[[], _T] | None = None
    ) -> _T:
        """Do `work` in the loop and return its result. Interrupted here, it is cancelled there.

        Args:
            work: what is done, in a task of its own.
            timeout: the seconds that it may take; None for any time.
            at_once: tried first, in this thread; it raises `trio.WouldBlock` if only `work` can do it.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            ValueError: `timeout` is no number of seconds.
            trio.ClosedResourceError: the client was closed, before or meanwhile.
        """
        _check_timeout(timeout)
        self.check_open()
        if at_once is not None:
            try:
                return self.turn.step(at_once)
            except trio.WouldBlock:
                pass
        done: Future[_T] = Future()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with trio.move_on_after(float("inf") if timeout is None else timeout) as patience, scope:
                    done.set_result(await work())
                    return
                if patience.cancelled_caught:
                    done.set_exception(TimeoutError(f"not done within {timeout:g} s"))
            except Exception as error:
                done.set_exception(error)
            finally:
                if not done.done():
                    done.set_exception(_closed())

        try:
            self._token.run_sync_soon(self._start, run, done)
            return done.result()
        except trio.RunFinishedError:
            raise _closed() from None
        except KeyboardInterrupt:
            # It must not happen after what is called next, so the wait for its end goes on when it is interrupted too.
            while True:
                try:
                    with suppress(trio.RunFinishedError):
                        if not done.cancel():  # it has begun
                            self._token.run_sync_soon(scope.cancel)
                            done.exception()
                    break
                except KeyboardInterrupt:
                    pass
            raise

    def _start(self, run: Callable[[], Awaitable[None]], done: Future[_T]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        if self._close.is_set():
            done.set_exception(_closed())
        else:
            self._nursery.start_soon(run)

    def hold(self, make: Callable[[], AbstractAsyncContextManager[_T]]) -> tuple[_T, Callable[[], None]]:
        """Make and enter a context manager in the loop, and return what it gives and what leaves it again.

        Interrupted, either leaves it.
        """
        leave, is_held = trio.Event(), trio.Lock()

        async def held(*, task_status: trio.TaskStatus[_T]) -> None:
            async with is_held, make() as given:
                task_status.started(given)
                await leave.wait()

        async def enter() -> _T:
            given: _T = await self._nursery.start(held)
            return given

        async def let_go() -> None:
            leave.set()
            async with is_held:
                pass

        def do(work: Callable[[], Awaitable[_R]]) -> _R:
            try:
                return self.do(work)
            except KeyboardInterrupt:
                with suppress(trio.ClosedResourceError):
                    self.do(let_go)
                raise

        return do(enter), partial(do, let_go)

    def close(self) -> None:
        """End the loop, and raise what leaving the client raises."""
        if self._closing:
            self._thread.join()
            return
        self.check_open()
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._close.set)
        self._closing = True  # after that, as another close() only waits
        self._ended.result()


class Receiving(Generic[_T]):
    """One thread at a time that receives what a claim gets.

    Args:
        loop: the client's.
        claim: what is received from.
        take: returns what has arrived, or raises `trio.WouldBlock`.
        busy: the text of the exception for a second thread.
    """

    def __init__(self, loop: Loop, claim: Receiver, take: Callable[[], _T], busy: str) -> None:
        self._loop = loop
        self._take = take
        self._busy = busy
        self._has_receiver = False
        self._came = threading.Lock()
        self._waits = False
        claim.on_wake = self._wake

    def _wake(self) -> None:
        if self._waits:
            self._waits = False
            self._loop.turn.release_later(self._came)

    def receive(self, timeout: float | None) -> _T:
        _check_timeout(timeout)
        if self._has_receiver:
            raise trio.BusyResourceError(self._busy)
        # No call is in between, so neither another thread nor a KeyboardInterrupt can be.
        self._has_receiver = True
        try:
            until = None if timeout is None else monotonic() + timeout
            while True:
                self._loop.check_open()
                try:
                    return self._loop.turn.step(self._take_or_wait)
                except trio.WouldBlock:
                    pass
                left = -1.0 if until is None else min(max(until - monotonic(), 0), threading.TIMEOUT_MAX)
                if not self._came.acquire(timeout=left) and not left:
                    raise TimeoutError(f"not done within {timeout:g} s")
        finally:
            self._has_receiver = False

    def _take_or_wait(self) -> _T:
        try:
            return self._take()
        except trio.WouldBlock:
            self._came.acquire(blocking=False)  # it is free after a wait that was interrupted
            self._waits = True
            raise


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:  # also for nan
        raise ValueError(f"timeout is None or a number of seconds from 0, not {timeout}")


def _closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("this client is closed; open another one with connect()")
