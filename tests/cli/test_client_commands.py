"""`send`, `who`, `ping` and `bench` as processes, and what all client commands have in common."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.cli import processes
from tests.cli.clients import client, finish, lines_until
from tests.cli.processes import assert_one_line, relay, run, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.processes import RelayProcess

COMMANDS = [
    ["send", "B", "x"],
    ["receive"],
    ["pipe", "B"],
    ["pipe", "--raw", "B"],
    ["who"],
    ["ping"],
    ["bench"],
]
"""Each client command, with what it must have."""
WAIT = ("--wait", str(processes.PATIENCE))


def ids(commands: list[list[str]]) -> list[str]:
    return [" ".join(command) for command in commands]


class TestSend:
    def test_each_byte_arrives_and_the_given_id_is_reported(self, place: Path) -> None:
        with client("receive", "--id", "B", "-n", "2", cwd=place) as receiver:
            sent = run("send", *WAIT, "B", "hi", cwd=place)
            assert finish(receiver) == (0, b"0xff h\n0xff i\n", b"")
        assert (sent.returncode, sent.stdout, sent.stderr) == (0, "", "sending as 0xff\n")

    def test_with_an_id_nothing_is_said(self, place: Path) -> None:
        sent = run("send", "--id", "B", "B", "to myself", cwd=place)
        assert (sent.returncode, sent.stdout, sent.stderr) == (0, "", "")

    def test_standard_input_arrives_whole(self, place: Path) -> None:
        data = os.urandom(1_000_000)
        (place / "much").write_bytes(data)
        with (
            client("receive", "--id", "B", "-n", str(len(data)), "--format", "raw", cwd=place) as receiver,
            client("send", "--id", "A", *WAIT, "B", "-", cwd=place, stdin=place / "much") as sender,
        ):
            assert finish(receiver) == (0, data, b"")
            assert finish(sender) == (0, b"", b"")

    def test_an_absent_id_gets_one_line_and_exit_1(self, place: Path) -> None:
        sent = run("send", "--id", "A", "B", "hi", cwd=place)
        assert_one_line(sent, 1, "^triorelay: no client holds the id B; --wait SECONDS waits until one does$")

    def test_a_client_that_does_not_come_in_time_gets_one_line_and_exit_1(self, place: Path) -> None:
        sent = run("send", "--id", "A", "--wait", "0.01", "B", "hi", cwd=place)
        assert_one_line(sent, 1, r"B did not join within 0\.01 s")

    @pytest.mark.parametrize("text", ["", "-"], ids=["no text", "no input"])
    def test_an_absent_peer_is_reported_to_a_client_that_sends_nothing_too(self, place: Path, text: str) -> None:
        with client("send", "--id", "A", "B", text, cwd=place) as sender:
            code, output, complaint = finish(sender)
        assert (code, output) == (1, b"")
        assert complaint.startswith(b"triorelay: no client holds the id B")

    def test_a_connected_client_needs_no_time_to_come(self, place: Path) -> None:
        sent = run("send", "--id", "B", "--wait", "0", "B", "hi", cwd=place)
        assert (sent.returncode, sent.stderr) == (0, "")

    def test_what_was_dropped_gets_one_line_and_exit_1(self, tmp_path: Path) -> None:
        with (
            relay("--overflow", "drop", "--stall-timeout", "1", cwd=tmp_path) as running,
            socket.socket(socket.AF_UNIX) as deaf,
        ):
            deaf.connect(str(tmp_path / "server_socket"))
            deaf.sendall(b"B\x80")
            running.wait_for("client joined id=B")
            (tmp_path / "much").write_bytes(bytes(4_000_000))
            with client("send", "--id", "A", "B", "-", cwd=tmp_path, stdin=tmp_path / "much") as sender:
                running.wait_for("client joined id=A")
                deaf.settimeout(processes.PATIENCE)
                code, output, complaint = finish(sender)
            assert (code, output, complaint.count(b"\n")) == (1, b"", 1)
            assert b"triorelay: frames to B were lost" in complaint

    @pytest.mark.parametrize(("kind", "size"), [("a file", rb"/50\.0 kB"), ("a pipe", rb"/\? ")], ids=["file", "pipe"])
    def test_a_terminal_sees_how_far_it_is(self, place: Path, kind: str, size: bytes) -> None:
        data = bytes(50_000)
        (place / "much").write_bytes(data)
        master, terminal = pty.openpty()
        with (
            os.fdopen(master, "rb", buffering=0) as screen,
            os.fdopen(terminal, "wb") as stderr,
            client("receive", "--id", "B", "-n", str(len(data)), "--format", "raw", cwd=place) as receiver,
            client(
                *("send", "--id", "A", *WAIT, "B", "-"),
                cwd=place,
                settings={"TERM": "xterm", "COLUMNS": "80"},
                stdin=place / "much" if kind == "a file" else None,
                stderr=stderr,
            ) as sender,
        ):
            stderr.close()
            if sender.stdin is not None:
                sender.stdin.write(data)
            assert finish(sender)[0] == 0
            assert finish(receiver)[0] == 0
            assert re.search(size, everything(screen.fileno()))

    @pytest.mark.parametrize("words", [["AB", "x"], ["", "x"], ["0x00", "x"], ["B"], []], ids=repr)
    def test_wrong_usage_gets_one_line_and_exit_2(self, tmp_path: Path, words: list[str]) -> None:
        assert_one_line(run_here("send", *words, cwd=tmp_path), 2, r"^triorelay: .*see triorelay send --help")


def everything(descriptor: int) -> bytes:
    """What waits on a terminal whose other side is closed: its end is an error."""
    parts = []
    with suppress(OSError):
        while part := os.read(descriptor, 65536):
            parts.append(part)
    return b"".join(parts)


class TestWho:
    def test_it_prints_the_connected_clients_without_itself(self, running: RelayProcess, place: Path) -> None:
        alone = run("who", cwd=place)
        assert (alone.returncode, alone.stdout, alone.stderr) == (0, "", "")
        with client("receive", "--id", "b", cwd=place), client("receive", "--id", "0x01", cwd=place):
            running.wait_for("client joined")
            running.wait_for("client joined")
            there = run("who", cwd=place)
        assert (there.returncode, there.stdout, there.stderr) == (0, "0x01\nb\n", "")

    def test_one_that_is_asked_for_decides_the_exit_code(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "--id", "b", cwd=place):
            running.wait_for("client joined")
            for id, code in (("b", 0), ("0x62", 0), ("B", 1)):
                asked = run("who", id, cwd=place)
                assert (asked.returncode, asked.stdout, asked.stderr) == (code, "", "")

    def test_only_watching_can_reconnect(self, place: Path) -> None:
        assert_one_line(run("who", "--reconnect", cwd=place), 2, "--reconnect goes with --watch")

    def test_watching_prints_joins_and_leaves(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "--id", "a", cwd=place):
            running.wait_for("client joined")
            with client("who", "--watch", cwd=place) as watcher:
                assert lines_until(watcher, "a\n") == ["a\n"]
                with client("receive", "--id", "B", cwd=place):
                    assert lines_until(watcher, "+ B\n") == ["+ B\n"]
                    with client("who", "--watch", "B", cwd=place) as narrow:
                        assert lines_until(narrow, "B\n") == ["B\n"]
                assert lines_until(watcher, "- B\n") == ["- B\n"]

    def test_watching_continues_after_more_than_the_client_keeps(self, tmp_path: Path) -> None:
        place = tmp_path
        with (
            # The watcher stands still for as long as the clients take.
            relay("--unix", "server_socket", "--stall-timeout", "0", cwd=place) as running,
            client("receive", "--id", "a", cwd=place),
        ):
            running.wait_for("client joined id=a")
            with client("who", "--watch", cwd=place) as watcher:
                assert lines_until(watcher, "a\n") == ["a\n"]
                watcher.send_signal(signal.SIGSTOP)
                for _ in range(600):
                    with socket.socket(socket.AF_UNIX) as guest:
                        guest.connect(str(place / "server_socket"))
                        guest.sendall(b"g\x81")
                        assert guest.recv(2, socket.MSG_WAITALL) == b"g\0"
                with client("receive", "--id", "z", cwd=place):
                    # So many have joined that the log keeps lines back: the one of z may be among them.
                    assert run("send", "--id", "y", *WAIT, "z", "1", cwd=place).returncode == 0
                    watcher.send_signal(signal.SIGCONT)
                    lines_until(watcher, "+ z\n")
                lines_until(watcher, "- z\n")

    def test_an_asking_client_with_an_id_is_present_too(self, place: Path) -> None:
        asked = run("who", "--id", "A", cwd=place)
        assert (asked.returncode, asked.stdout) == (0, "A\n")
        assert run("who", "--id", "A", "A", cwd=place).returncode == 0

    def test_watching_one_tells_of_no_other(self, running: RelayProcess, place: Path) -> None:
        with client("receive", "--id", "a", cwd=place) as a:
            running.wait_for("client joined")
            with client("who", "--watch", "a", cwd=place) as watcher:
                assert lines_until(watcher, "a\n") == ["a\n"]
                assert run("send", "--id", "B", "a", "1", cwd=place).returncode == 0
                a.kill()
                assert lines_until(watcher, "- a\n") == ["- a\n"]


class TestPing:
    def test_it_prints_each_round_trip_and_a_summary(self, place: Path) -> None:
        asked = run("ping", "-n", "3", "--interval", "0", cwd=place)
        *trips, summary = asked.stdout.splitlines()
        assert (asked.returncode, asked.stderr, len(trips)) == (0, "", 3)
        assert all(re.fullmatch(r"unix:server_socket: \d+\.\d{3} ms", trip) for trip in trips)
        assert re.fullmatch(r"3 round trips, min/median/max [\d.]+/[\d.]+/[\d.]+ ms", summary)

    def test_ctrl_c_ends_it_with_a_summary(self, place: Path) -> None:
        with client("ping", cwd=place) as pinging:
            assert pinging.stdout is not None
            assert pinging.stdout.readline()
            pinging.send_signal(signal.SIGINT)
            code, output, complaint = finish(pinging)
        assert (code, complaint.strip()) == (130, b"triorelay: interrupted")
        assert b" round trips, min/median/max " in output


class TestBench:
    @pytest.mark.parametrize("overflow", ["wait", "drop"])
    def test_it_prints_a_table(self, tmp_path: Path, overflow: str) -> None:
        with relay("--overflow", overflow, cwd=tmp_path):
            measured = run("bench", "--seconds", "0.1", cwd=tmp_path)
        assert (measured.returncode, measured.stderr) == (0, "")
        where, *rows = measured.stdout.splitlines()
        assert where == "unix:server_socket"
        names = [re.sub(r" +[\d.]+( us| M frames/s)?$", "", row) for row in rows]
        assert names == ["round trip, median", "round trip, p99", "round trips", "throughput"]


class TestWhichRelay:
    @pytest.mark.parametrize("form", ["unix:here", "unix://here", "here", "./here"])
    def test_a_unix_path_in_each_form(self, tmp_path: Path, form: str) -> None:
        with relay("--unix", "here", cwd=tmp_path):
            assert run("who", "-r", form, cwd=tmp_path).returncode == 0
            assert run("who", "--relay", form, cwd=tmp_path).returncode == 0

    def test_the_variable_names_it_and_the_option_counts_more(self, tmp_path: Path) -> None:
        with relay("--unix", "here", cwd=tmp_path):
            settings = {"TRIORELAY_RELAY": "here"}
            assert run("who", cwd=tmp_path, settings=settings).returncode == 0
            assert run("who", "-r", "elsewhere", cwd=tmp_path, settings=settings).returncode == 1

    @pytest.mark.parametrize("form", ["tcp:127.0.0.1:{}", "tcp://127.0.0.1:{}", "127.0.0.1:{}", "localhost:{}"])
    def test_tcp_in_each_form(self, tmp_path: Path, form: str) -> None:
        with relay("--tcp", "127.0.0.1:0", cwd=tmp_path) as running:
            assert run("who", "-r", form.format(port_of(running)), cwd=tmp_path).returncode == 0

    def test_an_unknown_format_gets_one_line_and_exit_2(self, tmp_path: Path) -> None:
        assert_one_line(run("who", "-r", "tcp:localhost", cwd=tmp_path), 2, "--relay.*see triorelay who --help")

    @pytest.mark.parametrize("words", COMMANDS, ids=ids(COMMANDS))
    def test_a_relay_that_is_not_there_gets_one_line_that_says_how_to_start_one(
        self, tmp_path: Path, words: list[str]
    ) -> None:
        complaint = "^triorelay: cannot connect to unix:server_socket: No such file or directory; "
        complaint += "start a relay there with: triorelay serve --unix server_socket$"
        assert_one_line(run_here(*words, cwd=tmp_path), 1, complaint)

    @pytest.mark.parametrize("place", ["nowhere/server_socket", "file"])
    def test_no_command_to_start_a_relay_is_shown_where_none_could_listen(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("no socket")
        assert_one_line(run("who", "-r", place, cwd=tmp_path), 1, "cannot connect to unix:[^;]*$")

    def test_a_relay_can_be_started_at_the_path_of_one_that_died_and_at_an_abstract_name(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "dead"))
        name = f"@{tmp_path.name}-{os.getpid()}"
        for place in ("dead", name):
            hint = f"; start a relay there with: triorelay serve --unix {place}$"
            assert_one_line(run("who", "-r", f"unix:{place}", cwd=tmp_path), 1, hint)

    @pytest.mark.needs("ip", "iptables", "netns")
    def test_on_another_host_no_relay_can_be_started_from_here(self, tmp_path: Path) -> None:
        # In a network of its own, in which another host seems to refuse the connection.
        script = (
            "ip link add cable type veth peer name other && ip address add 10.0.0.1/24 dev cable && "
            "ip link set cable up && "
            "iptables -A OUTPUT -p tcp -d 10.0.0.2 -j REJECT --reject-with tcp-reset && "
            'ip link set lo up && exec "$@"'
        )
        words = ["unshare", "--net", "sh", "-c", script, "sh", *processes.command("who", "-r", "tcp:10.0.0.2:9734")]
        result = subprocess.run(
            words,
            cwd=tmp_path,
            env=processes.environment({}),
            capture_output=True,
            text=True,
            timeout=processes.PATIENCE,
        )
        assert_one_line(result, 1, "cannot connect to tcp:10.0.0.2:9734: [^;]*$")

    @pytest.mark.parametrize(("scheme", "mend"), [("tcp", "--tcp {}$"), ("tls", "--tls {} --tls-cert FILE")])
    def test_a_port_without_a_relay_gets_one_line_that_says_how_to_start_one(
        self, tmp_path: Path, scheme: str, mend: str
    ) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            address, port = f"{scheme}:127.0.0.1:{bound.getsockname()[1]}", bound.getsockname()[1]
            complaint = f"cannot connect to {address}: Connection refused; "
            complaint += f"start a relay there with: triorelay serve {mend.format(port)}"
            assert_one_line(run("who", "-r", address, cwd=tmp_path), 1, complaint)

    @pytest.mark.parametrize("words", COMMANDS[:4], ids=ids(COMMANDS[:4]))
    def test_an_id_that_is_taken_gets_one_line_and_exit_1(
        self, running: RelayProcess, place: Path, words: list[str]
    ) -> None:
        with client("receive", "--id", "A", cwd=place):
            running.wait_for("client joined")
            assert_one_line(
                run(*words, "--id", "A", cwd=place),
                1,
                r"the relay refused id A: the id is taken \(code 1\); choose another with --id",
            )


def port_of(running: RelayProcess) -> int:
    found = re.search(r"listening=\S*(?:tcp|tls):127\.0\.0\.1:(\d+)", running.ready)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("words", COMMANDS, ids=ids(COMMANDS))
def test_ctrl_c_leaves_no_traceback(running: RelayProcess, place: Path, words: list[str]) -> None:
    if words == ["who"]:
        words = ["who", "--watch"]
    if words[0] == "send":
        words = ["send", "A", "-", "--id", "A"]
    with client(*words, cwd=place) as command:
        if words[0] in ("who", "ping"):
            # The log does not show that an observer came; but a watcher prints the next client that joins.
            with client("receive", cwd=place):
                assert command.stdout is not None
                assert command.stdout.readline()
        else:
            running.wait_for("client joined")
        command.send_signal(signal.SIGINT)
        code, _, complaint = finish(command)
    assert b"Traceback" not in complaint
    assert code == 130
    assert complaint.splitlines()[-1] == b"triorelay: interrupted"


class TestProof:
    """TLS and token options, on every command that takes them."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> trustme.CA:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        for name, host in (("relay", "127.0.0.1"), ("client", "client.example")):
            certificate = authority.issue_cert(host)
            certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
            certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        return authority

    @pytest.fixture
    def tls(self, authority: trustme.CA, tmp_path: Path) -> Iterator[str]:
        """The address of a relay with mutual TLS."""
        files = ["--tls-cert", "relay.pem", "--tls-key", "relay.key", "--tls-client-ca", "ca.pem"]
        with relay("--tls", "127.0.0.1:0", *files, cwd=tmp_path) as running:
            yield f"tls:127.0.0.1:{port_of(running)}"

    @pytest.mark.parametrize(
        "words",
        [
            ["send", "A", "to myself", "-i", "A"],
            ["who"],
            ["ping", "-n", "1"],
            ["bench", "--seconds", "0.1"],
        ],
        ids=lambda words: words[0],
    )
    def test_mutual_tls(self, tls: str, tmp_path: Path, words: list[str]) -> None:
        options = ["-r", tls, "--tls-ca", "ca.pem", "--tls-cert", "client.pem", "--tls-key", "client.key"]
        result = run(*words, *options, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")

    def test_receive_and_pipe_over_mutual_tls(self, tls: str, tmp_path: Path) -> None:
        options = ["-r", tls, "--tls-ca", "ca.pem", "--tls-cert", "client.pem", "--tls-key", "client.key"]
        with client("receive", "-i", "B", "-n", "1", *options, cwd=tmp_path) as receiver:
            assert run("send", "-i", "A", *WAIT, "B", "1", *options, cwd=tmp_path).returncode == 0
            assert finish(receiver) == (0, b"A 1\n", b"")
        with client("pipe", "-i", "B", "A", *options, cwd=tmp_path) as one:
            with client("pipe", "-i", "A", "B", *options, cwd=tmp_path) as other:
                assert one.stdin is not None
                one.stdin.write(b"by TLS")
                one.stdin.close()
                assert finish(other) == (0, b"by TLS", b"")
            assert one.wait() == 0

    def test_a_relay_of_an_unknown_authority_gets_one_line_and_exit_1(self, tls: str, tmp_path: Path) -> None:
        assert_one_line(run("who", "-r", tls, cwd=tmp_path), 1, "its certificate is not trusted.*; --tls-ca names")

    def test_a_client_without_a_certificate_gets_one_line_and_exit_1(self, tls: str, tmp_path: Path) -> None:
        assert_one_line(run("who", "-r", tls, "--tls-ca", "ca.pem", cwd=tmp_path), 1, "^triorelay: ")

    def test_a_port_without_tls_gets_one_line_and_exit_1(self, tmp_path: Path) -> None:
        with relay("--tcp", "127.0.0.1:0", cwd=tmp_path) as running:
            address = f"tls:127.0.0.1:{port_of(running)}"
            assert_one_line(run("who", "-r", address, cwd=tmp_path), 1, "cannot connect to .*it does not speak TLS")

    def test_files_without_a_tls_address_get_one_line_and_exit_1(self, place: Path) -> None:
        assert_one_line(run("who", "--tls-ca", "ca.pem", cwd=place), 1, "go with a tls: address, not with unix:")

    @pytest.mark.parametrize(
        "words",
        [["--tls-ca", "no.pem"], ["--tls-ca", "client.key"], ["--tls-cert", "no.pem"], ["--tls-key", "client.key"]],
        ids=" ".join,
    )
    def test_a_file_of_no_use_gets_one_line_and_exit_1(
        self, authority: trustme.CA, tmp_path: Path, words: list[str]
    ) -> None:
        assert_one_line(run_here("who", "-r", "tls:127.0.0.1:1", *words, cwd=tmp_path), 1, re.escape(words[1]))

    @pytest.fixture
    def guarded(self, tmp_path: Path) -> Iterator[Path]:
        """The directory of a relay that asks for a token."""
        (tmp_path / "token").write_text("a token of sixteen bytes or more\n")
        (tmp_path / "wrong").write_text("another one that is not the same\n")
        (tmp_path / "relay.toml").write_text("[principals.holder]\ntoken_file = 'token'\n")
        with relay("--config", "relay.toml", cwd=tmp_path):
            yield tmp_path

    def test_a_token_lets_in(self, guarded: Path) -> None:
        for words in (["send", "A", "x", "-i", "A"], ["who"], ["ping", "-n", "1"], ["bench", "--seconds", "0.1"]):
            result = run(*words, "--token-file", "token", cwd=guarded)
            assert (result.returncode, result.stderr) == (0, ""), words

    def test_a_wrong_token_gets_one_line_and_exit_1(self, guarded: Path) -> None:
        assert_one_line(run("who", "--token-file", "wrong", cwd=guarded), 1, r"refused.*\(code 6\)$")

    def test_no_token_gets_one_line_that_says_how_to_give_one(self, guarded: Path) -> None:
        assert_one_line(run("who", cwd=guarded), 1, r"refused.*\(code 6\); prove your identity with --token-file")

    @pytest.mark.parametrize("content", [None, "", "x" * 256], ids=["missing", "empty", "too long"])
    def test_a_token_file_of_no_use_gets_one_line_and_exit_1(self, place: Path, content: str | None) -> None:
        if content is not None:
            (place / "bad").write_text(content)
        assert_one_line(
            run("who", "--token-file", "bad", cwd=place),
            1,
            "^triorelay: --token-file: (cannot read bad: No such file|a token has 1 to 255 bytes)",
        )


@pytest.mark.parametrize("words", COMMANDS, ids=ids(COMMANDS))
def test_help_names_the_common_options(tmp_path: Path, words: list[str]) -> None:
    result = run_here(words[0], "--help", cwd=tmp_path)
    assert result.returncode == 0
    for option in ("-r, --relay", "-i, --id", "--tls-ca", "--tls-cert", "--tls-key", "--token-file"):
        assert option in result.stdout


def test_send_ends_although_a_third_client_floods_it(running: RelayProcess, place: Path) -> None:
    """More than it may leave unread, before the answer that it waits for: it reads on, or the relay closes it."""
    size = 400_000
    with ExitStack() as stack:
        # Both are there before the sender, which looks once whether the receiver is.
        for id in (b"B", b"F"):
            flooder = stack.enter_context(socket.socket(socket.AF_UNIX))
            flooder.connect(str(place / "server_socket"))
            flooder.sendall(id + b"\x82")
            assert flooder.recv(2, socket.MSG_WAITALL) == id + b"\0"
        sender = stack.enter_context(client("send", "--id", "S", "B", "-", cwd=place))
        while flooder.recv(4, socket.MSG_WAITALL) != b"\0\x01\0S":
            pass
        # The relay answers when all of it was written, so that the sender has taken what the kernel does not hold.
        flooder.sendall(b"S!" * size + b"\0\x08\0\x01")
        while flooder.recv(4, socket.MSG_WAITALL) != b"\0\x08\0\x01":
            pass
        code, _, complaint = finish(sender)
        assert (code, complaint) == (0, b"")
