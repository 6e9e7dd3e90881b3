"""`triorelay serve` as a process: what it says, how it ends, and what a user's mistakes get."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.cli import processes
from tests.cli.processes import assert_one_line, relay, run
from tests.watchdog import watched
from triorelay.cli._entry import RELAY_SIGNALS
from triorelay.protocol import ConfigError, DropReason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEDGER_KEYS = [
    "accepted",
    "copied",
    "written",
    "queued",
    "control",
    "partial",
    *(f"dropped.{reason.value}" for reason in DropReason),
    "forwarded",
    "imported",
]


def ledger_of(line: str) -> dict[str, int]:
    word, *pairs = line.split(" ")
    assert word == "ledger"
    return {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def connect(path: Path, hello: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(processes.PATIENCE)
    client.connect(str(path))
    client.sendall(hello)
    return client


def receive(client: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = client.recv(size - len(received))
        assert part, received
        received += part
    return received


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_ledger_is_the_last_line(tmp_path: Path, number: signal.Signals) -> None:
    with relay("--unix", "s", cwd=tmp_path) as running:
        with connect(tmp_path / "s", b"A\x81") as a, connect(tmp_path / "s", b"B\x81") as b:
            assert (receive(a, 2), receive(b, 2)) == (b"A\0", b"B\0")
            a.sendall(b"B1C2")
            assert receive(b, 2) == b"A1"
            running.signal(number)
            assert (a.recv(2), b.recv(2)) == (b"", b"")
        code, lines = running.end()
    assert code == 0
    ledger = ledger_of(lines[-1])
    assert list(ledger) == LEDGER_KEYS
    assert {key: count for key, count in ledger.items() if count} == {
        "accepted": 2,
        "written": 1,
        "dropped.no_route": 1,
    }
    assert not (tmp_path / "s").exists()


def test_without_any_listener_it_is_the_path_of_the_article(tmp_path: Path) -> None:
    with relay(cwd=tmp_path) as running:
        assert "listening=unix:server_socket " in running.ready
        assert (tmp_path / "server_socket").is_socket()


def test_the_ready_line_names_addresses_clients_and_memory(tmp_path: Path) -> None:
    with relay("--unix", "s", "--tcp", "127.0.0.1:0", cwd=tmp_path) as running:
        place = re.search(r"tcp:(127\.0\.0\.1:\d+)", running.ready)
        assert place is not None
        assert f'listening="unix:s, tcp:{place[1]}"' in running.ready
        assert "unix s is open to its owner and group" in running.ready
        assert f"tcp {place[1]} has no authentication; private networks may connect" in running.ready
        assert re.search(r"memory_ceiling=\d{9}\b", running.ready)
        assert running.ready.rstrip().endswith('try="triorelay who --relay unix:s"')


def test_an_abstract_name_is_listened_on_and_reached_everywhere(tmp_path: Path) -> None:
    name = f"@triorelay-{os.getpid()}"
    admin = ["--admin", f"unix:{name}.admin"]
    with relay("--unix", f"unix:{name}", *admin, cwd=tmp_path) as running:
        assert f"listening=unix:{name} " in running.ready
        assert f"unix {name} is open to every user" in running.ready
        assert run("who", "--relay", f"unix:{name}", cwd=tmp_path).returncode == 0
        assert run("health", *admin, cwd=tmp_path).stdout == "ok\n"
    assert list(tmp_path.iterdir()) == []
    with relay("--unix", f"./{name}", cwd=tmp_path):
        assert (tmp_path / name).is_socket()


def test_beside_an_abstract_name_there_is_no_admin_endpoint_that_every_user_might_reach(tmp_path: Path) -> None:
    with processes.starting("--unix", f"@triorelay-{os.getpid()}", cwd=tmp_path) as process:
        assert process.stderr is not None
        assert "ready" in process.stderr.readline()


def test_what_to_try_next_names_an_address_that_can_be_connected_to(tmp_path: Path) -> None:
    with relay("--tcp", "0", cwd=tmp_path) as running:
        assert re.search(r'try="triorelay who --relay tcp:localhost:\d+"', running.ready)


@pytest.mark.parametrize(
    ("allow", "who"),
    [
        (["any"], "; every host may connect"),
        (["any", "private"], "; every host may connect"),
        (["private", "100.64.0.0/10"], "private networks and 100.64.0.0/10 may connect"),
        (["10.0.0.0/8", "fd00::/8"], "10.0.0.0/8 and fd00::/8 may connect"),
    ],
)
def test_the_ready_line_says_which_clients_are_allowed(tmp_path: Path, allow: list[str], who: str) -> None:
    options = [word for network in allow for word in ("--allow", network)]
    with relay("--tcp", "127.0.0.1:0", *options, cwd=tmp_path) as running:
        assert who in running.ready


def test_the_ready_line_warns_of_a_socket_for_everybody(tmp_path: Path) -> None:
    with relay("--unix", "s", "--socket-mode", "0666", cwd=tmp_path) as running:
        assert "unix s is open to every user" in running.ready


def test_the_ready_line_names_the_dashboard(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with relay("--unix", "s", "--admin", str(port), cwd=tmp_path) as running:
        assert f'dashboard=http://127.0.0.1:{port}/ try="triorelay who --relay unix:s"' in running.ready


def test_with_a_policy_the_ready_line_does_not_call_a_listener_open(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text("[principals.me]\nuid = 0\n")
    with relay("--config", "relay.toml", "--unix", "s", "--tcp", "127.0.0.1:0", cwd=tmp_path) as running:
        assert "is for principals of the policy" in running.ready
        assert "no authentication" not in running.ready


@pytest.mark.parametrize(
    ("options", "openness"),
    [
        ([], "has no authentication; private networks may connect"),
        (["--tls-client-ca", "ca.pem"], "is for clients with a certificate"),
    ],
    ids=["TLS", "mutual TLS"],
)
def test_a_tls_listener_serves_clients_and_says_which_may_connect(
    tmp_path: Path, options: list[str], openness: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "relay.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "relay.key")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("client.example").configure_cert(context)
    files = ["--tls-cert", "relay.pem", "--tls-key", "relay.key"]
    with relay("--tls", "127.0.0.1:0", *files, *options, cwd=tmp_path) as running:
        place = re.search(r"listening=tls:127\.0\.0\.1:(\d+)", running.ready)
        assert place is not None
        assert f"tls 127.0.0.1:{place[1]} {openness}" in running.ready
        with (
            socket.create_connection(("127.0.0.1", int(place[1])), timeout=processes.PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(b"A\x81A1")
            assert receive(client, 4) == b"A\0A1"


def test_a_certificate_that_is_not_there_gets_one_line_and_exit_1(tmp_path: Path) -> None:
    result = run("serve", "--tls", "127.0.0.1:0", "--tls-cert", "no.pem", "--tls-key", "no.key", cwd=tmp_path)
    assert_one_line(result, 1, r" --tls-cert: cannot read no\.pem: No such file")


@pytest.mark.parametrize("level", ["warning", "error"])
def test_the_ledger_is_written_at_every_level(tmp_path: Path, level: str) -> None:
    with processes.starting("--unix", "s", "--log-level", level, cwd=tmp_path) as process:
        wait_until_reachable(tmp_path / "s", process)
        process.send_signal(signal.SIGTERM)
        _, lines = process.communicate()
    assert process.returncode == 0
    assert ledger_of(lines.rstrip("\n"))["accepted"] == 0


def wait_until_reachable(path: Path, process: subprocess.Popen[str]) -> None:
    """Return once a client is welcomed; for a relay that does not say when it is ready."""
    while process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == 0:
                client.sendall(b"A\x81")
                assert receive(client, 2) == b"A\0"
                return
    pytest.fail("the relay ended early")


def test_json_logs_are_objects_the_ledger_too(tmp_path: Path) -> None:
    with relay("--unix", "s", "--log-format", "json", cwd=tmp_path) as running:
        ready = json.loads(running.ready)
        running.signal(signal.SIGTERM)
        _, lines = running.end()
    assert ready["message"] == "ready"
    assert ready["listening"] == ["unix:s"]
    events = [json.loads(line) for line in lines]
    assert events[-1]["message"] == "ledger"
    assert list(events[-1])[3:] == LEDGER_KEYS


def test_settings_come_from_command_line_environment_and_file(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text(
        'unix = ["file"]\nlog_format = "json"\nqueue_bytes = 1000\nsocket_mode = "0600"'
    )
    settings = {"TRIORELAY_CONFIG": "relay.toml", "TRIORELAY_UNIX": "one, two", "TRIORELAY_QUEUE_BYTES": "2000"}
    with relay("--queue-bytes", "3000", cwd=tmp_path, settings=settings) as running:
        ready = json.loads(running.ready)
    assert ready["listening"] == ["unix:one", "unix:two"]
    assert ready["open"] == ["unix one is open to its owner", "unix two is open to its owner"]
    assert ready["memory_ceiling"] > 255 * 3000
    with relay("--unix", "three", cwd=tmp_path, settings=settings) as running:
        assert json.loads(running.ready)["listening"] == ["unix:three"]


def test_a_wrong_variable_gets_one_line_and_exit_2(tmp_path: Path) -> None:
    result = run("serve", cwd=tmp_path, settings={"TRIORELAY_TCP": "9734,http"})
    assert_one_line(result, 2, "TRIORELAY_TCP: a port is a number from 0 to 65535, not 'http'")


def test_an_unknown_key_gets_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text('tcpp = ["9734"]')
    result = run("serve", "--config", "relay.toml", cwd=tmp_path)
    assert_one_line(result, 2, r"relay\.toml: tcpp: unknown key; did you mean tcp\?")


def test_a_second_signal_stops_at_once_and_exits_1(tmp_path: Path) -> None:
    with (
        relay("--unix", "s", "--drain-timeout", "0", cwd=tmp_path) as running,
        connect(tmp_path / "s", b"A\x81") as client,
    ):
        assert receive(client, 2) == b"A\0"
        running.signal(signal.SIGTERM)
        # An end of file that is not answered by one keeps the drain waiting.
        assert client.recv(2) == b""
        running.signal(signal.SIGTERM)
        code, lines = running.end()
    assert code == 1
    assert any("stopped at once by a second signal" in line for line in lines)
    assert ledger_of(lines[-1])["queued"] == 0
    assert not (tmp_path / "s").exists()


WRONG_USAGE = [
    (["--nosuch"], r"No such option '?--nosuch"),
    (["--queue-byte", "9"], r"No such option '?--queue-byte'?\. Did you mean"),
    (["--tcp", "abc"], r"--tcp: a port is a number from 0 to 65535, not 'abc'"),
    (["--tcp", "70000"], r"--tcp: a port is a number"),
    (["--tcp", "::1:9734"], r"--tcp: an IPv6 address goes in brackets"),
    (["--tcp"], r"--tcp'? requires an argument"),
    (["--overflow", "maybe"], r"'maybe' is not one of"),
    (["--queue-bytes", "many"], r"--queue-bytes: expected a whole number, not 'many'"),
    (["--queue-bytes", "1"], r"--queue-bytes: must be from 2 to 1073741824, not 1"),
    (["--stall-timeout", "-1"], r"--stall-timeout: must be from 0"),
    (["--stall-timeout", "nan"], r"--stall-timeout: must be a number, not nan"),
    (["--hold-frames", "40000"], r"--hold-frames: must be from 0 to 32768, not 40000"),
    (["--allow", "10.0.0.1/8"], r"--allow: expected a network .* has host bits set; private and any"),
    (["--allow", "nowhere"], r"--allow: expected a network such as"),
    (["--socket-mode", "888"], r"--socket-mode: expected octal permission bits such as 0660, not '888'"),
    (["--socket-mode", "7777"], r"--socket-mode: expected octal"),
    (["--socket-group", "no such group"], r"--socket-group: no group is called"),
    (["--socket-group", "4294967295"], r"--socket-group: no group is called"),
    (["surplus"], r"unexpected extra argument"),
]


@pytest.mark.parametrize(("arguments", "complaint"), WRONG_USAGE, ids=[" ".join(case[0]) for case in WRONG_USAGE])
def test_wrong_usage_gets_one_line_and_exit_2(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    assert_one_line(run("serve", *arguments, cwd=tmp_path), 2, complaint)


FAILED_STARTS = [
    (["--unix", "a" * 108], r"path of 108 bytes that begins with aaaa.* at most 107 bytes"),
    (["--unix", "missing/s"], r"there is no directory missing for the socket missing/s: create it"),
    (["--unix", "directory"], r"directory is a directory, not a socket, and is left alone"),
    (["--unix", "li\nnk"], r"li\\nnk is a symbolic link, not a socket"),
    (["--unix", "taken"], r"taken is in use by another server"),
    (["--tcp", "no.such.host.invalid:1"], r"cannot listen on tcp no\.such\.host\.invalid:1: [A-Z]"),
    (["--tcp", "192.0.2.1:9734"], r"cannot listen on tcp 192\.0\.2\.1:9734: .*no interface"),
    (["--config", "missing.toml"], r"missing\.toml: No such file or directory; give --config a file"),
    (["--config", "directory"], r"directory: Is a directory"),
]


@pytest.mark.parametrize(
    ("arguments", "complaint"), FAILED_STARTS, ids=[complaint[:24] for _, complaint in FAILED_STARTS]
)
def test_what_the_system_refuses_gets_one_line_and_exit_1(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "li\nnk").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(os.path.relpath(tmp_path / "taken"))
        taken.listen()
        assert_one_line(run("serve", *arguments, cwd=tmp_path), 1, complaint)


def test_a_tcp_port_in_use_gets_one_line_and_exit_1_and_no_socket_file_stays(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--unix", "s", "--tcp", f"127.0.0.1:{port}", cwd=tmp_path)
    assert_one_line(result, 1, rf"cannot listen on tcp 127\.0\.0\.1:{port}: Address already in use; choose another")
    assert not (tmp_path / "s").exists()


def test_a_second_relay_on_the_same_path_is_refused_and_the_first_continues(tmp_path: Path) -> None:
    with relay("--unix", "s", cwd=tmp_path):
        assert_one_line(run("serve", "--unix", "s", cwd=tmp_path), 1, "s is in use by another relay: stop that one")
        with connect(tmp_path / "s", b"A\x81") as client:
            assert receive(client, 2) == b"A\0"


def test_an_error_at_the_start_is_json_where_logs_are(tmp_path: Path) -> None:
    result = run("serve", "--unix", "missing/s", "--log-format", "json", cwd=tmp_path)
    event = json.loads(result.stderr)
    assert (result.returncode, event["level"]) == (1, "error")
    assert "no directory missing" in event["message"]


class TestWhatEndsARunningRelay:
    """Run in this process, with a service that fails."""

    @staticmethod
    def end_with(error: BaseException, path: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
        import trio
        import trio.testing

        from triorelay.cli._run_relay import RelayProcess
        from triorelay.relay import Config, Relay

        class Failing:
            async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                # The relay is handed out when clients can connect, and only then there is a ledger to write.
                await trio.testing.wait_all_tasks_blocked()
                raise error

        config = Config(unix=(str(path),))
        code = RelayProcess(config, services=[Failing()], log_format="text", log_level="warning").run()
        return code, capfd.readouterr().err.splitlines()

    @pytest.fixture(autouse=True)
    def log_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import logging

        logger = logging.getLogger("triorelay")
        for name in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, name, getattr(logger, name))

    @pytest.fixture(autouse=True)
    def signals_as_before(self) -> Iterator[None]:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        yield
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RELAY_SIGNALS)

    def test_what_a_user_can_cause_is_one_line_before_the_ledger(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        code, lines = self.end_with(ConfigError("the token is too short"), tmp_path / "s", capfd)
        assert code == 1
        assert len(lines) == 2
        assert lines[0].endswith("ERROR the token is too short")
        assert ledger_of(lines[1])["accepted"] == 0

    def test_a_signal_before_it_is_ready_ends_it_without_a_ledger(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        import trio

        from triorelay.cli._run_relay import RelayProcess
        from triorelay.relay import Config, Relay

        class NeverReady:
            async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None]) -> None:
                signal.raise_signal(signal.SIGTERM)
                await trio.sleep_forever()

        config = Config(unix=(str(tmp_path / "s"),))
        assert RelayProcess(config, services=[NeverReady()], log_format="text", log_level="info").run() == 0
        assert capfd.readouterr().err == ""
        assert not (tmp_path / "s").exists()

    def test_a_bug_gets_its_traceback_before_the_ledger(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        code, lines = self.end_with(ZeroDivisionError("a bug"), tmp_path / "s", capfd)
        assert code == 1
        assert any("ZeroDivisionError: a bug" in line for line in lines[:-1])
        assert ledger_of(lines[-1])["accepted"] == 0


def test_help_says_every_option_and_its_default(tmp_path: Path) -> None:
    result = run("serve", "--help", cwd=tmp_path)
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for words in ("--unix PATH", "--tcp [HOST:]PORT", "--overflow [wait|drop]", "Default: 65536.", "--config FILE"):
        assert words in text
    assert "TRIORELAY_<OPTION>" in text
    assert "Default: ." not in text


def _without_working_directory(place: Path, *arguments: str) -> subprocess.Popen[str]:
    (place / "gone").mkdir()
    words = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *processes.command("serve", *arguments)]
    return subprocess.Popen(words, cwd=place / "gone", env=processes.environment({}), stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("recorder", [(), ("--flight-recorder", "100000")], ids=["plain", "flight recorder"])
def test_with_absolute_paths_it_needs_no_working_directory(tmp_path: Path, recorder: tuple[str, ...]) -> None:
    with watched(_without_working_directory(tmp_path, "--unix", str(tmp_path / "s"), *recorder)) as process:
        running = processes.RelayProcess(process, "")
        running.wait_for("ready")
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0


@pytest.mark.parametrize("arguments", [[], ["--unix", "s"], ["--tcp", "127.0.0.1:0", "--handover", "h"]])
def test_a_working_directory_that_was_removed_is_named(tmp_path: Path, arguments: list[str]) -> None:
    with watched(_without_working_directory(tmp_path, *arguments)) as process:
        code, lines = processes.RelayProcess(process, "").end()
    assert code == 1
    assert f"the working directory {tmp_path / 'gone'} was removed, so " in lines[-1]


def test_even_with_an_early_second_signal_the_exit_code_is_one_of_ours(tmp_path: Path) -> None:
    for _ in range(10):
        with relay("--unix", "server_socket", "--admin", "none", cwd=tmp_path) as running:
            running.signal(signal.SIGTERM)
            running.signal(signal.SIGTERM)
            code, lines = running.end()
            assert code in (0, 1)
            assert lines[-1].startswith("ledger ")
