"""The client library for programs without Trio."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.processes import RelayProcess, relay
from triorelay import CallFailed, ConnectionLost, HelloRefused, NotDelivered, blocking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RelayProcess]:
    with relay(cwd=tmp_path) as process:
        yield process


@pytest.fixture
def address(running: RelayProcess, tmp_path: Path) -> str:
    return f"unix:{tmp_path}/server_socket"


def test_data_goes_there_and_back(address: str) -> None:
    with blocking.connect(address, "A") as a, blocking.connect(address, "B") as b:
        assert (a.id, b.id) == ("A", "B")
        a.wait_for("B", timeout=PATIENCE)
        assert a.peers == {"B"}
        a.send("B", b"hello")
        assert b.receive(timeout=PATIENCE) == ("A", b"hello")
        b.send("A", memoryview(b"hi"))
        assert next(iter(a)) == ("B", b"hi")
        a.flush()


def test_nothing_in_time_is_a_timeout_and_takes_nothing(address: str) -> None:
    with blocking.connect(address, "A") as a:
        with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
            a.receive(timeout=0.01)
        with pytest.raises(TimeoutError):
            a.wait_for("Z", timeout=0)
        a.send("A", b"1")
        assert a.receive(timeout=PATIENCE) == ("A", b"1")


def test_messages_arrive_whole(address: str) -> None:
    with (
        blocking.connect(address, "A") as a,
        blocking.connect(address, "B") as b,
        a.messages() as sending,
        b.messages() as receiving,
    ):
        sending.send("B", bytes(100_000))
        sending.send("B", b"")
        assert receiving.receive(timeout=PATIENCE) == ("A", bytes(100_000))
        assert next(iter(receiving)) == ("A", b"")
        with pytest.raises(trio.BusyResourceError):
            a.messages()
    with pytest.raises(trio.ClosedResourceError):
        sending.send("B", b"")


def test_a_burst_of_messages_is_received_in_order_and_what_is_left_goes_with_the_channel(address: str) -> None:
    with blocking.connect(address, "A") as a:
        with a.messages() as messages:
            for number in range(500):
                messages.send("A", str(number).encode())
            a.flush(timeout=PATIENCE)
            assert [messages.receive(timeout=PATIENCE)[1] for _ in range(250)] == [b"%d" % n for n in range(250)]
        with pytest.raises(trio.ClosedResourceError):
            messages.receive(timeout=PATIENCE)
        with a.messages() as messages:
            messages.send("A", b"next")
            assert messages.receive(timeout=PATIENCE) == ("A", b"next")


def test_one_thread_receives_messages_at_a_time(address: str) -> None:
    with blocking.connect(address, "A") as a, a.messages() as messages, ThreadPoolExecutor() as pool:
        first = pool.submit(messages.receive)
        while not messages._channel._one_receiver._busy:
            time.sleep(0.001)
        with pytest.raises(trio.BusyResourceError):
            messages.receive(timeout=PATIENCE)
        messages.send("A", b"1")
        assert first.result(PATIENCE) == ("A", b"1")


def test_calls_are_answered_by_a_function_in_a_thread(address: str) -> None:
    main = threading.get_ident()

    def handler(source: str, payload: bytes) -> bytes:
        assert threading.get_ident() != main
        if not payload:
            raise CallFailed(2, "empty")
        return source.encode() + payload

    with (
        blocking.connect(address, "A") as a,
        blocking.connect(address, "B") as b,
        a.calls() as calls,
        b.calls() as serving,
        ThreadPoolExecutor() as pool,
    ):
        served = pool.submit(serving.serve, handler, at_once=4, timeout=3)
        answers = list(pool.map(lambda n: calls.call("B", b"%d" % n, timeout=PATIENCE), range(4)))
        assert answers == [b"A0", b"A1", b"A2", b"A3"]
        with pytest.raises(CallFailed, match="empty"):
            calls.call("B", b"")
        with pytest.raises(NotDelivered):
            calls.call("Z", b"")
        assert served.result(PATIENCE) is None
        with pytest.raises((TimeoutError, CallFailed)):
            calls.call("B", b"1", timeout=0.1)
        with pytest.raises(trio.BusyResourceError):
            a.calls()
    with pytest.raises(trio.ClosedResourceError):
        calls.call("B", b"")


def test_several_threads_send_and_call_at_once(address: str) -> None:
    with blocking.connect(address, "A") as a, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(a.send, "A", bytes([n]) * 1000) for n in range(50)]
        received = b""
        while len(received) < 50_000:
            received += a.receive(timeout=PATIENCE)[1]
        for future in sent:
            future.result()
        assert sorted(received) == sorted(bytes(range(50)) * 1000)


def test_one_thread_receives_at_a_time(address: str) -> None:
    with blocking.connect(address, "A") as a, ThreadPoolExecutor() as pool:
        first = pool.submit(a.receive)
        while not a._client._inbox._one_receiver._busy:
            time.sleep(0.001)
        with pytest.raises(trio.BusyResourceError):
            a.receive(timeout=PATIENCE)
        a.send("A", b"1")
        assert first.result(PATIENCE) == ("A", b"1")


def test_a_closed_client_says_so_and_wakes_waiting_threads(address: str) -> None:
    client = blocking.connect(address, "A")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.receive)
        client.send("A", b"")
        client.close()
        with pytest.raises(trio.ClosedResourceError):
            waiting.result(PATIENCE)
    for use in (client.receive, client.flush, lambda: client.send("B", b"1"), lambda: client.peers, client.messages):
        with pytest.raises(trio.ClosedResourceError, match=r"open another one with connect\(\)"):
            use()
    client.close()


def test_what_cannot_be_reached_or_is_refused_is_raised_by_connecting(address: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        blocking.connect(tmp_path / "nowhere", "A")
    with blocking.connect(address, "A"), pytest.raises(HelloRefused):
        blocking.connect(address, "A")
    with pytest.raises(TypeError):
        blocking.connect(address, "A", token=5)  # type: ignore[arg-type]


def test_the_end_of_the_relay_is_reported(running: RelayProcess, address: str) -> None:
    with ThreadPoolExecutor() as pool, blocking.connect(address, "A") as client:
        waiting = pool.submit(client.receive)
        running.signal(signal.SIGTERM)
        with pytest.raises(ConnectionLost):
            waiting.result(PATIENCE)


def test_an_error_of_the_block_is_not_hidden_by_that_of_closing(running: RelayProcess, address: str) -> None:
    def fail() -> None:
        with blocking.connect(address, "A") as client:
            client.send("B", b"1")
            running.process.kill()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_ctrl_c_interrupts_a_receive_and_the_client_continues(address: str) -> None:
    script = f"""
import os, threading, signal, time
from triorelay import blocking
with blocking.connect({address!r}, "A") as client:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        client.receive()
    except KeyboardInterrupt:
        print("interrupted")
    client.send("A", b"1")
    print(client.receive(timeout=10))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n('A', b'1')\n", "")
