"""Relays as processes, over a real NATS server: what holds, and what holds when something is killed or stopped."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.cluster.nats.test_connection import connected
from tests.cluster.nats_accounts import make_accounts
from tests.cluster.nats_server import NatsServer
from tests.wire.client import EVENTS, JOINED, LEFT, PATIENCE, PING, Client, event, exchange, frames, noise
from tests.wire.relay_process import SOURCE_TREE, RelayProcess
from triorelay.cluster.nats._bucket import Bucket
from triorelay.protocol import Event, EventCode, FrameReader

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import StartMember

pytestmark = pytest.mark.needs("nats-server")

LEASE = 5.0
TAKEN = 1


def claimed(relay: RelayProcess, id: bytes) -> Client:
    """Claim `id` again and again until it is granted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        client = relay.hello(id)
        if client.receive(2) == id + b"\0":
            return client
        client.close()
        assert time.monotonic() < deadline, f"{id!r} is never free"


def reachable(sender: Client, receiver: Client, source: bytes, destination: bytes) -> None:
    """Send until something arrives; what was sent before was dropped."""
    deadline = time.monotonic() + PATIENCE
    while not select.select([receiver.socket], [], [], 0.05)[0]:
        assert time.monotonic() < deadline, f"nothing from {source!r} reaches {destination!r}"
        sender.send(destination + b"?")
    sender.send(destination + b"!")
    while receiver.receive(2) != source + b"!":
        pass


def test_sixty_clients_of_three_relays_reach_each_other(start_member: StartMember) -> None:
    relays = [start_member() for _ in range(3)]
    ids = [bytes((id,)) for id in range(128, 188)]
    observers = [relay.observe() for relay in relays]
    clients = {id: relays[at % 3].claim(id) for at, id in enumerate(ids)}
    for observer in observers:
        assert {observer.receive(4) for _ in ids} == {event(JOINED, id) for id in ids}
    sending = {client: b"".join(to + bytes((me[0] ^ to[0],)) for to in ids) for me, client in clients.items()}
    received = exchange(sending, {client: 2 * len(ids) for client in clients.values()})
    for me, client in clients.items():
        got = received[client]
        assert {got[at : at + 2] for at in range(0, len(got), 2)} == {
            source + bytes((me[0] ^ source[0],)) for source in ids
        }
    clients[ids[0]].leave()
    for observer in observers:
        observer.expect(event(LEFT, ids[0]))


def test_a_flood_across_relays_arrives_whole_and_in_order(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = one.observe()
    a, b = one.claim(b"A"), two.claim(b"B")
    assert {observer.receive(4), observer.receive(4)} == {event(JOINED, b"A"), event(JOINED, b"B")}
    data = noise(5_000_000, 7)
    received = exchange({a: frames(b"B", data)}, {b: 2 * len(data)})
    assert received[b][1::2] == data
    assert received[b][0::2] == b"A" * len(data)
    ledger = one.stop()
    assert ledger["forwarded"] == ledger["written"] == len(data)
    assert two.stop()["imported"] == len(data)


def test_a_sender_is_told_of_frames_that_another_relay_dropped(start_member: StartMember) -> None:
    one, two = start_member(), start_member("--overflow", "drop", "--stall-timeout", "0")
    two.claim(b"B")
    observer = one.observe()
    a = one.claim(b"A", EVENTS)
    observer.expect(event(JOINED, b"A"))
    reader, drops = FrameReader(), 0
    while drops < 3:
        a.send(frames(b"B", bytes(1 << 17)), event(PING, 1))
        told: list[object] = []
        while Event(EventCode.PONG, 1) not in told:
            told += reader.feed(a.socket.recv(4096))
        drops += told.count(Event(EventCode.DROPPED, ord("B")))


def test_one_of_two_relays_wins_each_of_a_hundred_claims(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observers = [one.observe(), two.observe()]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(100):
            clients = list(threads.map(lambda relay: relay.hello(b"A"), (one, two)))
            codes = sorted(client.receive(2)[1] for client in clients)
            assert codes == [0, TAKEN]
            for client in clients:
                client.close()
            for observer in observers:
                observer.expect(event(JOINED, b"A"), event(LEFT, b"A"))


def test_the_ids_of_a_killed_relay_are_free_after_a_lease(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    one.claim(b"A")
    b = two.claim(b"B", EVENTS)
    one.process.kill()
    killed = time.monotonic()
    one.process.wait()
    a = claimed(two, b"A")
    assert time.monotonic() - killed < 2 * LEASE
    b.expect(event(LEFT, b"A"), event(JOINED, b"A"))
    a.send(b"B1")
    b.expect(b"A1")


def test_a_relay_that_drains_frees_its_ids_at_once(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = two.observe()
    one.claim(b"A")
    observer.expect(event(JOINED, b"A"))
    one.stop()
    observer.expect(event(LEFT, b"A"))
    two.claim(b"A")


def test_a_relay_that_was_killed_is_started_again(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    one.claim(b"A")
    b = two.claim(b"B")
    one.process.kill()
    one.process.wait()
    again = start_member()
    reachable(claimed(again, b"A"), b, b"A", b"B")


def test_a_stopped_relay_that_lost_its_id_delivers_nothing(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = two.observe()
    old, b = one.claim(b"A"), two.claim(b"B")
    local = one.claim(b"C")
    for _ in range(3):
        observer.receive(4)
    old.send(b"B1")
    b.expect(b"A1")
    one.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, one.process.pid, os.WSTOPPED)
    try:
        old.send(b"B" + b"2", b"C" + b"3")  # read only once the relay continues
        new = claimed(two, b"A")
    finally:
        one.process.send_signal(signal.SIGCONT)
    local.expect(b"A3")
    old.expect_end()
    new.send(b"B4")
    b.expect(b"A4")
    reachable(local, b, b"C", b"B")


def test_local_traffic_continues_while_the_engine_is_killed(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    a, b, c = one.claim(b"A"), two.claim(b"B"), one.claim(b"C")
    reachable(a, b, b"A", b"B")
    nats.kill()
    one.wait_for_line("cluster away")
    for _ in range(100):
        a.send(b"C1")
        c.expect(b"A1")
    a.send(b"B2")
    a.settle(b"A")
    d = one.claim(b"D")
    d.settle(b"D")
    nats.start()
    one.wait_for_line("cluster joined")
    two.wait_for_line("cluster joined")
    reachable(a, b, b"A", b"B")
    reachable(b, d, b"B", b"D")
    assert one.stop()["dropped.cluster_down"] >= 1


def test_the_older_lease_keeps_the_id_when_the_engine_returns(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    older = one.claim(b"A")
    nats.kill()
    one.wait_for_line("cluster away")
    two.wait_for_line("cluster away")
    younger = two.claim(b"A")
    nats.start()
    younger.expect_end()
    b = two.claim(b"B")
    reachable(b, older, b"B", b"A")


def test_a_stopped_engine_harms_no_client_here_and_delivers_nothing_late(
    start_member: StartMember, nats: NatsServer
) -> None:
    one, two = start_member(), start_member()
    a, b, c = one.claim(b"A"), two.claim(b"B"), one.claim(b"C")
    reachable(a, b, b"A", b"B")
    nats.signal(signal.SIGSTOP)
    try:
        a.send(b"B2")
        a.settle(b"A")
        for line in ("cluster away",):
            one.wait_for_line(line)
            two.wait_for_line(line)
        a.send(b"B3C4")
        c.expect(b"A4")
    finally:
        nats.signal(signal.SIGCONT)
    one.wait_for_line("cluster joined")
    two.wait_for_line("cluster joined")
    deadline = time.monotonic() + PATIENCE
    while not select.select([b.socket], [], [], 0.05)[0]:
        assert time.monotonic() < deadline
        a.send(b"B5")
    assert b.receive(2) == b"A5"


def test_a_relay_starts_without_an_engine_and_joins_it_later(start_member: StartMember, nats: NatsServer) -> None:
    nats.kill()
    one = start_member()
    assert any("cluster away" in line for line in one.lines)
    a = one.claim(b"A")
    nats.start()
    one.wait_for_line("cluster joined")
    two = start_member()
    b = two.claim(b"B")
    reachable(a, b, b"A", b"B")


def test_claims_are_refused_without_an_engine_where_that_is_asked_for(
    start_member: StartMember, nats: NatsServer
) -> None:
    nats.kill()
    one = start_member("--cluster-fallback", "refuse")
    one.hello(b"A").expect(b"A\x07")


def failing_start(directory: Path, *options: str) -> str:
    """Return what a relay that cannot start says before its end."""
    done = subprocess.run(
        [sys.executable, "-m", "triorelay", "serve", "--admin", "none", "--unix", "s", "--cluster-required", *options],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_engine_that_is_required_and_not_there(tmp_path: Path, nats: NatsServer) -> None:
    nats.kill()
    assert "cluster: the engine cannot be used" in failing_start(tmp_path, "--cluster", nats.url)


def test_wrong_credentials(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "right").write_text("relay:a good password\n")
    (tmp_path / "wrong").write_text("relay:a bad password\n")
    with NatsServer(tmp_path / "nats", "--user", "relay", "--pass", "a good password") as server:
        said = failing_start(tmp_path, "--cluster", server.url, "--cluster-credentials", str(tmp_path / "wrong"))
        assert "refuses our credentials" in said
        assert "--cluster-credentials" in said
        missing = failing_start(tmp_path, "--cluster", server.url, "--cluster-credentials", str(tmp_path / "none"))
        assert "cannot read" in missing
        with RelayProcess(
            tmp_path, "--cluster", server.url, "--cluster-required", "--cluster-credentials", str(tmp_path / "right")
        ) as relay:
            relay.claim(b"A")


def test_a_user_without_rights_to_the_subjects_of_the_realm(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "known").write_text("relay:a good password\n")
    (tmp_path / "nats.conf").write_text(
        'authorization { users = [{ user: relay, password: "a good password", permissions: {'
        ' publish: ["$KV.>", "$JS.API.>", "_INBOX.>"], subscribe: ["_INBOX.>"] } }] }'
    )
    with NatsServer(tmp_path / "nats", "--config", str(tmp_path / "nats.conf")) as server:
        known = ("--cluster", server.url, "--cluster-credentials", str(tmp_path / "known"))
        assert "Permissions Violation for Subscription to" in failing_start(tmp_path, *known)


def test_a_user_with_exactly_the_permissions_that_the_how_to_names(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "known").write_text("relay:a good password\n")
    subjects = '"triorelay.plant.>", "$KV.triorelay-plant.>", "$JS.API.>", "_INBOX.>"'
    (tmp_path / "nats.conf").write_text(
        f'authorization {{ users = [{{ user: relay, password: "a good password", permissions: {{'
        f" publish: [{subjects}], subscribe: [{subjects}] }} }}] }}"
    )
    with NatsServer(tmp_path / "nats", "--config", str(tmp_path / "nats.conf")) as server:
        known = ("--cluster", server.url, "--cluster-credentials", str(tmp_path / "known"), "--realm", "plant")
        (tmp_path / "1").mkdir()
        (tmp_path / "2").mkdir()
        with RelayProcess(tmp_path / "1", *known) as one, RelayProcess(tmp_path / "2", *known) as two:
            a, b = one.claim(b"A"), two.claim(b"B")
            reachable(a, b, b"A", b"B")


def test_a_server_that_takes_small_messages_only(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats.conf").write_text("max_payload: 4096\n")
    with NatsServer(tmp_path / "nats", "--config", str(tmp_path / "nats.conf")) as server:
        said = failing_start(tmp_path, "--cluster", server.url)
        assert "it takes messages of 4096 bytes at most; raise its max_payload" in said


def test_the_smallest_messages_that_a_server_may_take_suffice(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats.conf").write_text("max_payload: 8192\n")
    with NatsServer(tmp_path / "nats", "--config", str(tmp_path / "nats.conf")) as server:
        (tmp_path / "1").mkdir()
        (tmp_path / "2").mkdir()
        known = ("--cluster", server.url)
        with RelayProcess(tmp_path / "1", *known) as one, RelayProcess(tmp_path / "2", *known) as two:
            a, b = one.claim(b"A"), two.claim(b"B")
            reachable(a, b, b"A", b"B")
            data = noise(200_000, 9)
            received = exchange({a: frames(b"B", data)}, {b: 2 * len(data)})
            assert received[b][1::2] == data


@pytest.mark.parametrize("content", ["a token of good length\n", "relay:a good password\n"])
def test_the_right_token_or_password_lets_in(tmp_path: Path, content: str) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "right").write_text(content)
    user, colon, password = content.strip().partition(":")
    options = ("--user", user, "--pass", password) if colon else ("--auth", user)
    with NatsServer(tmp_path / "nats", *options) as server:
        known = ("--cluster", server.url, "--cluster-required", "--cluster-credentials", str(tmp_path / "right"))
        with RelayProcess(tmp_path, *known) as relay:
            relay.claim(b"A")


def test_a_creds_file_lets_in_and_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    configuration, right = make_accounts(tmp_path)
    (tmp_path / "others").mkdir()
    _, of_others = make_accounts(tmp_path / "others")
    broken = tmp_path / "broken.creds"
    with NatsServer(tmp_path / "nats", "--config", str(configuration)) as server:
        assert "refuses our credentials" in failing_start(tmp_path, "--cluster", server.url)
        for file, reason in ((of_others, "refuses our credentials"), (broken, "no seed that goes with one")):
            broken.write_text(right.read_text().partition("SEED-----")[0])
            assert reason in failing_start(tmp_path, "--cluster", server.url, "--cluster-credentials", str(file))
        known = ("--cluster", server.url, "--cluster-required", "--cluster-credentials", str(right))
        with RelayProcess(tmp_path, *known) as relay:
            relay.claim(b"A")


def test_tls_is_taken_where_it_is_asked_for_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nats").mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    files = ("--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server.pem"))
    with NatsServer(tmp_path / "nats", "--tls", *files) as server:
        url = server.url.replace("nats:", "tls:")
        assert "TLS: " in failing_start(tmp_path, "--cluster", url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with RelayProcess(tmp_path, "--cluster", url, "--cluster-required") as relay:
            relay.claim(b"A")
    with NatsServer(tmp_path / "nats") as server:
        said = failing_start(tmp_path, "--cluster", server.url.replace("nats:", "tls:"))
        assert "it offers no TLS" in said


def test_a_bucket_of_other_settings(tmp_path: Path, nats: NatsServer) -> None:
    async def make_bucket() -> None:
        async with connected(nats.url) as connection:
            await Bucket(connection, "triorelay-other", 60).open()

    trio.run(make_bucket)
    said = failing_start(tmp_path, "--cluster", nats.url, "--realm", "other")
    assert "triorelay-other keeps 64 changes for 60 s" in said
    assert "nats kv del triorelay-other" in said


def test_a_server_without_jetstream(tmp_path: Path) -> None:
    with NatsServer(tmp_path, streams=False) as server:
        assert "start nats-server with -js" in failing_start(tmp_path, "--cluster", server.url)


def test_garbage_is_counted_and_harms_no_client(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    a, b = one.claim(b"A"), two.claim(b"B")
    reachable(a, b, b"A", b"B")

    async def publish() -> None:
        async with connected(nats.url) as connection:
            bucket = Bucket(connection, "triorelay-default", LEASE)
            lease = await bucket.read("42")
            assert lease is not None
            relay = json.loads(lease[0])["leases"][0]["relay"]
            for payload in (b"", b"\x93", b"hello" * 1000, b"\x97\x00", lease[0]):
                connection.publish(f"triorelay.default.relay.{relay}", payload)
            for key in ("zz", "100", "00", "4A"):
                await bucket.create(key, b"{}")
            await bucket.create("43", b"\xff")

    trio.run(publish)
    two.wait_for_line("cluster garbage")
    a.send(b"B7")
    b.expect(b"A7")
