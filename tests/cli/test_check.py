"""`triorelay check`: what a configuration means, and one question about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.processes import assert_one_line, run, run_here
from tests.relay.in_process import write_tls_files
from triorelay.cli._check import show_ids
from triorelay.protocol import ALL_IDS, parse_id_set

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """
unix = ["relay.socket"]
tcp = ["9734"]
tls = ["9735"]
tls_cert = "relay.pem"
tls_key = "relay.key"
tls_client_ca = "ca.pem"
address_map = { "10.0.0.5" = "P", "10.0.0.6" = "x" }

[principals.planner]
uid = 1000
ids = "P-R,0x80-0x8f"

[principals.arm]
certificate = "arm.robot.example"
ids = "a"
to = "P,b-d"

[principals.holder]
token_file = "token"
ids = "h"
to = "h"

[principals.net]
address = "10.0.0.0/8"
ids = "P"
to = "a"
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    ca = trustme.CA()
    write_tls_files(tmp_path, ca, client_ca=ca)
    (tmp_path / "token").write_text("a token of over 16 bytes\n")
    return written(tmp_path, POLICY)


def written(directory: Path, text: str) -> Path:
    file = directory / "relay.toml"
    file.write_text(text)
    return file


def test_it_shows_what_each_principal_may_hold_and_reach(policy: Path, tmp_path: Path) -> None:
    # Run from elsewhere: what the file names lies beside it.
    (tmp_path / "elsewhere").mkdir()
    result = run_here("check", str(policy), cwd=tmp_path / "elsewhere")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "listens on: unix:relay.socket, tcp:*:9734, tls:*:9735"
    assert lines[2:7] == [
        "principal proof may hold may send to reaches",
        "planner uid 1000 P-R,0x80-0x8f * planner, arm, holder, net",
        "arm certificate arm.robot.example a P,b-d planner, net",
        f"holder token in {tmp_path}/token h h holder",
        "net address 10.0.0.0/8 P a arm",
    ]
    assert lines[7:] == [
        "address map: 10.0.0.5 is P",
        "address map: 10.0.0.6 is x, but refused: address 10.0.0.6 is net, and principals.net.ids is P, without x",
        "no other client may connect",
    ]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("--as uid:1000 --id P --to B", "yes: uid 1000 is planner; principals.planner.ids is P-R,0x80-0x8f; "),
        ("--as uid:1000 --id A --to B", "no: uid 1000 is planner, and principals.planner.ids is P-R,0x80-0x8f, "),
        ("--as uid:1000", "yes: uid 1000 is planner"),
        ("--as uid:1001", "no: uid 1001: it is no principal of the policy"),
        ("--as certificate:arm.robot.example --id a --to c", "yes: certificate arm.robot.example is arm; "),
        ("--as certificate:arm.robot.example --to e", "no: certificate arm.robot.example is arm, and "),
        ("--as token:holder --id h", "yes: a client with holder's token is holder; principals.holder.ids is h"),
        ("--as token:holder --id P", "no: a client with holder's token is holder, and principals.holder.ids is h, "),
        ("--as address:10.1.2.3 --id P --to a", "yes: address 10.1.2.3 is net; "),
        ("--as address:10.0.0.6 --id P", "no: address 10.0.0.6 is x by the address map, and cannot be another"),
        ("--as address:10.0.0.6", "no: address 10.0.0.6 is net, and principals.net.ids is P, without x"),
        ("--as address:203.0.113.7 --id P", "no: address 203.0.113.7: its address is not allowed, "),
    ],
)
def test_it_answers_yes_or_no_and_the_rule(policy: Path, tmp_path: Path, question: str, answer: str) -> None:
    result = run_here("check", str(policy), *question.split(), cwd=tmp_path)
    assert result.stdout.startswith(answer), result
    assert len(result.stdout.splitlines()) == 1
    assert result.returncode == (0 if answer.startswith("yes") else 1)


def test_without_principals_each_client_that_may_connect_may_do_everything(tmp_path: Path) -> None:
    file = written(tmp_path, 'tcp = ["9734"]')
    assert "no principal is named" in run("check", str(file), cwd=tmp_path).stdout
    assert run_here("check", str(file), "--as", "uid:7", "--id", "A", "--to", "B", cwd=tmp_path).returncode == 0
    assert run_here("check", str(file), "--as", "address:203.0.113.7", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("principals", "complaint"),
    [
        ("nobody = { uid = 65534 }", "principals.nobody: never applies: 65534 is what the kernel shows"),
        ("machine = { certificate = 'x' }", "principals.machine: never applies: without tls_client_ca"),
        ("far = { address = '100.64.0.0/10' }", "principals.far: never applies: add 100.64.0.0/10 to allow"),
        (
            "near = { address = '10.0.0.0/8' }, again = { address = '10.0.0.0/8', ids = 'A' }",
            "principals.again: never applies: near has the same proof and is named first",
        ),
    ],
)
def test_a_principal_that_would_never_apply_is_refused(tmp_path: Path, principals: str, complaint: str) -> None:
    file = written(tmp_path, f'tcp = ["9734"]\nprincipals = {{ {principals} }}')
    result = run_here("check", str(file), cwd=tmp_path)
    assert_one_line(result, 1, re.escape(complaint))
    assert_one_line(run("serve", "--config", str(file), cwd=tmp_path), 2, re.escape(complaint))


def test_what_sockets_of_systemd_may_give_is_not_refused(tmp_path: Path) -> None:
    file = written(tmp_path, 'tcp = ["9734"]\nprincipals = { me = { uid = 1 } }')
    assert run_here("check", str(file), cwd=tmp_path).returncode == 0
    # Here it is known that there are none.
    result = run("serve", "--config", str(file), cwd=tmp_path)
    assert_one_line(result, 2, "principals.me: never applies: a uid is known by a Unix socket only")


@pytest.mark.parametrize(
    ("text", "key", "needs"),
    [
        ("tcp = ['9734']\nsocket_mode = '0600'", "socket_mode", "a Unix socket that is a file"),
        ("unix = ['@s']\nsocket_group = '0'", "socket_group", "a Unix socket that is a file"),
        ("tls_cert = 'c'\ntls_key = 'k'", "tls_cert", "a TLS listener"),
        ("hold_time = 3", "hold_time", "--hold-frames"),
        ("admin = 'none'\nadmin_token_file = 't'", "admin_token_file", "an admin endpoint"),
        ("take_over = true\nhandover = 'none'", "take_over", "a place to ask at"),
        ("admin_host = 'relay.example'", "admin_host", "an admin endpoint on TCP"),
        ("realm = 'r'", "realm", "--cluster"),
        ("cluster_required = true", "cluster_required", "--cluster"),
    ],
)
def test_a_setting_that_another_one_makes_meaningless_is_refused(
    tmp_path: Path, text: str, key: str, needs: str
) -> None:
    complaint = rf"relay\.toml: {key}: has no meaning without {needs}"
    assert_one_line(run_here("check", str(written(tmp_path, text)), cwd=tmp_path), 1, complaint)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("allow = ['private']", "allow: has no meaning without a TCP or TLS listener"),
        ("[address_map]\n'10.0.0.5' = 'A'", "address_map: has no meaning without a TCP listener"),
    ],
)
def test_settings_for_tcp_are_refused_if_there_is_surely_no_tcp(tmp_path: Path, text: str, complaint: str) -> None:
    file = str(written(tmp_path, text))
    assert run_here("check", file, cwd=tmp_path).returncode == 0
    assert_one_line(run("serve", "--config", file, cwd=tmp_path), 2, complaint)


def test_a_place_in_the_address_map_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    file = str(written(tmp_path, "tcp = ['9734']\n[address_map]\n'203.0.113.5' = 'A'"))
    complaint = r"address_map\.203\.0\.113\.5: never applies: add 203\.0\.113\.5 to allow"
    assert_one_line(run_here("check", file, cwd=tmp_path), 1, complaint)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("overflow = 'sink'", "relay.toml: overflow: expected wait or drop, not 'sink'"),
        ("not toml", "not TOML"),
        ("[principals.x]\nuid = 1\ntoken_file = 'token'", "needs exactly one of"),
        ("[principals.x]\ntoken_file = 'none'", "principals.x.token_file: cannot read"),
        ("[principals.x]\nuid = 1\nids = 'AB'", "'AB' is neither an id nor a range"),
        ("tls = ['9735']\ntls_cert = 'none'\ntls_key = 'none'", "tls_cert: cannot read"),
        ("tls = ['9735']", "TLS"),
        ("cluster = ['nats://a..b:4222']", "cluster: nats://a..b:4222: an engine's address is"),
        ("cluster = ['nats://h:4222']\ncluster_lease = 0.1", "cluster_lease: "),
        ("admin_token_file = 'none'", "admin_token_file: cannot read"),
        ("admin = '0.0.0.0:9736'", "can be reached by others"),
        ("admin = '9736'\nadmin_host = 'http://h'", "relay.toml: admin_host: needs a name such as relay.example"),
        ("unix = ''", "relay.toml: unix: a Unix socket needs a path"),
        ("unix = '@'", "relay.toml: unix: a Unix socket needs a path"),
        ("handover = ''", "relay.toml: handover: a Unix socket needs a path"),
        (f"handover = '{'x' * 108}'", "relay.toml: handover: the socket path of 108 bytes"),
        ("admin = 'there/'", "relay.toml: admin: there/ names a directory"),
        ("unix = ['s', './s']", "relay.toml: unix: unix:./s is named twice"),
        (
            "admin = 'server_socket'\nunix = 'server_socket'",
            "relay.toml: admin: unix:server_socket is named twice, by unix",
        ),
        ("unix = 's'\nhandover = 'unix:s'", "relay.toml: handover: unix:s is named twice, by unix"),
        ("admin = '9734'\ntcp = '127.0.0.1:9734'", "relay.toml: admin: tcp:127.0.0.1:9734 is named twice, by tcp"),
    ],
)
def test_a_wrong_file_is_reported_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    result = run_here("check", str(written(tmp_path, text)), cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "none.toml",
        "relay.toml --as x:1",
        "relay.toml --as uid:me",
        f"relay.toml --as uid:{'9' * 5000}",
        "relay.toml --as address:x",
        "relay.toml --id A",
    ],
)
def test_wrong_questions_are_reported_in_one_line(tmp_path: Path, arguments: str) -> None:
    written(tmp_path, "")
    result = run_here("check", *arguments.split(), cwd=tmp_path)
    assert result.returncode == (1 if arguments == "none.toml" else 2)
    assert len(result.stderr.splitlines()) == 1


def test_only_a_principal_with_a_token_can_be_asked_about_by_token(policy: Path, tmp_path: Path) -> None:
    result = run_here("check", str(policy), "--as", "token:arm", cwd=tmp_path)
    assert result.returncode == 2
    assert "no principal arm has a token_file" in result.stderr


@given(st.frozensets(st.sampled_from(sorted(ALL_IDS)), min_size=1))
def test_ids_are_shown_as_they_are_written(ids: frozenset[int]) -> None:
    assert parse_id_set(show_ids(ids)) == ids


def test_all_ids_are_a_star_and_the_relay_is_none() -> None:
    assert show_ids(ALL_IDS | {0}) == "*"
    assert show_ids(frozenset(b"ABCx\0")) == "A-C,x"
