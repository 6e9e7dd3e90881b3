"""The client library for programs without Trio."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from tests.cli.processes import RelayProcess, relay
from triorelay import Backoff, CallFailed, ConnectionLost, HelloRefused, NotDelivered, blocking
from triorelay.client._thread import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
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


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(address: str, timeout: float) -> None:
    with blocking.connect(address, "A") as client:
        client.send("A", b"1")
        for use in (client.receive, client.flush):
            with pytest.raises(ValueError, match="a number of seconds from 0, not"):
                use(timeout=timeout)
        assert client.receive(timeout=float("inf")) == ("A", b"1")


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
        while not messages._receiving._waits:
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
        while not a._receiving._waits:
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


def test_messages_and_data_that_need_not_wait_start_no_task_in_the_loop(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blocking.connect(address, "A") as a, a.messages() as messages:
        started: list[object] = []
        monkeypatch.setattr(a._loop._nursery, "start_soon", started.append)
        for size in (0, 10, 10_000):
            messages.send("A", bytes(size))
            assert messages.receive(timeout=PATIENCE) == ("A", bytes(size))
        a.send("A", b"\0")
        monkeypatch.undo()
        assert not started


def test_one_message_after_the_other_leaves_although_the_loop_waits(address: str) -> None:
    with blocking.connect(address, "A") as a, a.messages() as messages:
        for number in range(50):
            messages.send("A", b"%d" % number)
        assert [messages.receive(timeout=PATIENCE)[1] for _ in range(50)] == [b"%d" % n for n in range(50)]
        for number in range(5):
            a.send("A", b"\0%d\0" % number)
        messages.send("A", b"last")
        assert messages.receive(timeout=PATIENCE) == ("A", b"last")


def test_more_than_the_relay_takes_waits_and_arrives(address: str) -> None:
    payload = bytes(range(256)) * 256
    with (
        blocking.connect(address, "A") as a,
        blocking.connect(address, "B") as b,
        a.messages() as sending,
        b.messages() as receiving,
        ThreadPoolExecutor() as pool,
    ):
        sent = [pool.submit(sending.send, "B", b"%d," % n + payload) for n in range(100)]
        arrived = set()
        for _ in range(100):
            arrived.add(receiving.receive(timeout=PATIENCE))
        for future in sent:
            future.result(PATIENCE)
    assert arrived == {("A", b"%d," % n + payload) for n in range(100)}


def test_a_wait_that_ends_without_a_message_leaves_no_wake_up_behind(address: str) -> None:
    with blocking.connect(address, "A") as a, a.messages() as messages:
        for number in range(20):
            with pytest.raises(TimeoutError):
                messages.receive(timeout=0)
            messages.send("A", b"%d" % number)
            messages.send("A", b"%d" % number)
            assert messages.receive(timeout=PATIENCE) == ("A", b"%d" % number)
            assert messages.receive(timeout=PATIENCE) == ("A", b"%d" % number)


def test_ctrl_c_while_sending_loses_and_doubles_nothing_but_what_it_interrupted(address: str) -> None:
    script = f"""
import os, signal, threading
from triorelay import blocking

sent, doubtful, number = [], [], 0
over = threading.Event()

def interrupt():
    for _ in range(100):
        over.wait(0.003)
        os.kill(os.getpid(), signal.SIGINT)
    over.set()

def receive():
    while (payload := messages.receive(timeout=30)[1]) != b"last":
        received.append(int(payload))

received = []
with (
    blocking.connect({address!r}, "A") as a,
    blocking.connect({address!r}, "B") as b,
    a.messages() as sending,
    b.messages() as messages,
):
    receiver = threading.Thread(target=receive)
    receiver.start()
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    while not over.is_set():
        try:
            while not over.is_set():
                number += 1
                sending.send("B", b"%d" % number)
                sent.append(number)
        except KeyboardInterrupt:
            doubtful.append(number)
    interrupter.join()
    while True:
        try:
            sending.send("B", b"last")
            receiver.join()
            break
        except KeyboardInterrupt:
            pass
    assert received == sorted(set(received)), "out of order or doubled"
    assert set(sent) - set(received) <= set(doubtful), "lost"
    assert messages._channel.discarded == 0, "damaged"
    assert len(received) > 100
    print("whole", bool(doubtful))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("whole True\n", "")


def test_after_a_fork_the_child_is_told_to_connect_itself(address: str) -> None:
    script = f"""
import os
from triorelay import blocking

client = blocking.connect({address!r}, "A")
messages = client.messages()
if not (child := os.fork()):
    uses = [lambda: client.send("A", b"1"), client.receive, client.flush, client.close, messages.receive,
            lambda: messages.send("A", b""), lambda: client.peers, messages.close, client.calls]
    for use in uses:
        try:
            use()
        except RuntimeError as error:
            assert "has forked; connect() in this one" in str(error), error
        else:
            os._exit(1)
    with blocking.connect({address!r}, "B") as other:
        other.send("B", b"2")
        assert other.receive(timeout=30) == ("B", b"2")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
messages.send("A", b"still")
assert messages.receive(timeout=30) == ("A", b"still")
client.close()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_over_tls_messages_arrive_one_by_one_and_in_bursts(tmp_path: Path) -> None:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "relay.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "relay.key")
    files = ("--tls-cert", "relay.pem", "--tls-key", "relay.key")
    with relay("--tls", "127.0.0.1:0", *files, cwd=tmp_path) as running:
        found = re.search(r"tls:127\.0\.0\.1:\d+", running.ready)
        assert found, running.ready
        with blocking.connect(found[0], "A", ssl_context=trusting) as a, a.messages() as messages:
            for number in range(20):
                messages.send("A", b"%d" % number)
                assert messages.receive(timeout=PATIENCE) == ("A", b"%d" % number)
            for number in range(500):
                messages.send("A", b"%d" % number)
            assert [messages.receive(timeout=PATIENCE)[1] for _ in range(500)] == [b"%d" % n for n in range(500)]


def test_a_client_that_reconnects_goes_on_after_a_restart_of_the_relay(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/server_socket"
    with relay(cwd=tmp_path) as first:
        client = blocking.connect(address, "A", reconnect=Backoff(initial=True))
        messages = client.messages()
        messages.send("A", b"1")
        assert messages.receive(timeout=PATIENCE) == ("A", b"1")
        client.flush(timeout=PATIENCE)
        first.signal(signal.SIGTERM)
        first.end()
    with relay(cwd=tmp_path), client, messages:
        for number in range(20):
            messages.send("A", b"%d" % number)
            assert messages.receive(timeout=PATIENCE) == ("A", b"%d" % number)


def test_ctrl_c_after_the_start_of_a_receive_leaves_no_receiver_behind(address: str) -> None:
    script = f"""
import signal
from triorelay import blocking

armed = False

def interrupt(number, frame):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
interrupted = received = 0
with blocking.connect({address!r}, "A") as client, client.messages() as messages:
    signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
    while interrupted < 300:
        armed = True
        try:
            messages.send("A", b"")
            messages.receive(timeout=0)
        except (KeyboardInterrupt, TimeoutError) as error:
            armed = False
            interrupted += isinstance(error, KeyboardInterrupt)
        armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    messages.send("A", b"last")
    while messages.receive(timeout=30)[1] != b"last":
        received += 1
print("received")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("received\n", "")


@pytest.mark.parametrize("opening", ["messages", "calls"])
def test_ctrl_c_while_a_claim_is_opened_or_closed_gives_it_back(address: str, opening: str) -> None:
    script = f"""
import os, signal
from triorelay import blocking

with blocking.connect({address!r}, "A") as client:
    def interrupted(*args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **options)

    real = client._client.{opening}
    client._client.{opening} = interrupted
    try:
        client.{opening}()
    except KeyboardInterrupt:
        print("opening", end=" ")
    client._client.{opening} = real
    claim = client.{opening}()
    start = client._loop._start
    client._loop._start = lambda *args: (os.kill(os.getpid(), signal.SIGINT), start(*args))
    try:
        claim.close()
    except KeyboardInterrupt:
        print("closing", end=" ")
    client._loop._start = start
    client.{opening}().close()
    print("again")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("opening closing again\n", "")


def test_ctrl_c_before_a_call_has_begun_does_not_wait_for_it(
    running: RelayProcess, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with blocking.connect(address, "A") as client:

        def call() -> None:
            with pytest.raises(KeyboardInterrupt):
                client.flush()
            interrupted.set()

        with monkeypatch.context() as patched:
            patched.setattr(client._loop, "_token", SimpleNamespace(run_sync_soon=interrupt))
            threading.Thread(target=call, daemon=True).start()
            assert interrupted.wait(PATIENCE)
        client.flush()
        with monkeypatch.context() as patched:
            patched.setattr(client._loop, "_token", SimpleNamespace(run_sync_soon=interrupt))
            with pytest.raises(KeyboardInterrupt):
                client.close()


def test_a_second_ctrl_c_does_not_end_the_wait_for_what_the_first_one_cancelled(address: str) -> None:
    script = f"""
import os, signal, threading, trio
from triorelay import blocking

begun, cancelled, caught, may_end, over = (threading.Event() for _ in range(5))

async def work():
    begun.set()
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            cancelled.set()
            await trio.to_thread.run_sync(may_end.wait)
            over.set()

def interrupt():
    for moment in (begun, cancelled):
        moment.wait()
        os.kill(os.getpid(), signal.SIGINT)
    caught.wait(1)
    may_end.set()

with blocking.connect({address!r}, "A") as client:
    threading.Thread(target=interrupt).start()
    try:
        client._loop.do(work)
    except KeyboardInterrupt:
        print("over" if over.is_set() else "not over")
        caught.set()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("over\n", "")


def test_a_loop_that_a_handler_ends_refuses_calls_while_it_leaves() -> None:
    leaves, may_leave = threading.Event(), threading.Event()

    @asynccontextmanager
    async def opening() -> AsyncIterator[Any]:
        try:
            yield None
        finally:
            leaves.set()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(may_leave.wait, PATIENCE)

    async def stop() -> None:
        raise SystemExit(3)

    loop = Loop(opening)
    with pytest.raises(trio.ClosedResourceError):
        loop.do(stop)
    assert leaves.wait(PATIENCE)
    with ThreadPoolExecutor() as pool:
        refused = pool.submit(loop.do, trio.lowlevel.checkpoint)
        assert isinstance(refused.exception(PATIENCE), trio.ClosedResourceError)
        may_leave.set()
    with pytest.raises(SystemExit):
        loop.close()
