"""What settings mean to a relay."""

from __future__ import annotations

import grp
import os
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import click
import pytest

from triorelay.cli._config import parse_ip, parse_network, relay_config
from triorelay.cli._sources import load_settings
from triorelay.protocol import ConfigError
from triorelay.relay import ANY_NETWORK, PRIVATE_NETWORKS, Config, Principal


def config_of(text: str = "", **options: object) -> Config:
    """The configuration that a file with `text` and a command line make."""
    file = Path("relay.toml")
    file.write_text(text)
    return relay_config(load_settings(options, {}, str(file)))


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_those_of_the_library_on_the_article_s_path() -> None:
    assert config_of() == Config(unix=("server_socket",))


def test_the_article_s_path_is_the_default_only_without_a_listener() -> None:
    assert config_of('tcp = ["9734"]').unix == ()


def test_a_path_given_twice_is_one_listener() -> None:
    assert config_of(unix=("a", "b", "a")).unix == ("a", "b")


def test_listeners_have_a_host_or_are_on_every_interface() -> None:
    config = config_of(tcp=("9734", "localhost:1", "[::1]:2", "0.0.0.0:0"))
    assert config.tcp == ((None, 9734), ("localhost", 1), ("::1", 2), ("0.0.0.0", 0))


def test_allow_names_networks() -> None:
    assert config_of(allow=("private", "any")).allow == (*PRIVATE_NETWORKS, *ANY_NETWORK)
    assert config_of(allow=("100.64.0.0/10", "2001:db8::1")).allow == (
        ip_network("100.64.0.0/10"),
        ip_network("2001:db8::1/128"),
    )
    assert config_of("allow = []").allow == ()


@pytest.mark.parametrize("text", ["0620", "620", "0o620"])
def test_the_mode_is_octal(text: str) -> None:
    assert config_of(socket_mode=text).socket_mode == 0o620


def test_a_group_is_a_name_or_a_number() -> None:
    group = grp.getgrgid(os.getgid())
    assert config_of(socket_group=group.gr_name).socket_group == group.gr_gid
    assert config_of(socket_group="4242").socket_group == 4242


def test_addresses_and_ids_of_the_map_are_parsed() -> None:
    assert config_of('[address_map]\n"10.0.0.5" = "P"\n"::1" = "0x80"').address_map == {
        ip_address("10.0.0.5"): ord("P"),
        ip_address("::1"): 0x80,
    }


def test_principals_are_parsed() -> None:
    planner, arm, door, plant = config_of("""
        [principals.planner]
        uid = 0
        ids = "P-R,0x80"
        to = "*"
        [principals.arm]
        certificate = "arm.robot.example"
        [principals.door]
        token_file = "door.token"
        [principals.plant]
        address = "10.1.0.0/16"
    """).principals
    assert (planner.name, planner.uid, planner.ids) == ("planner", 0, frozenset({*b"PQR", 0x80}))
    assert planner.to == arm.ids == frozenset(range(1, 256))
    assert arm.certificate == "arm.robot.example"
    assert door.token_file == Path("door.token")
    assert plant.address == ip_network("10.1.0.0/16")


def test_tls_files_are_given_together() -> None:
    files = config_of('tls = ["9735"]\ntls_cert = "c"\ntls_key = "k"\ntls_client_ca = "a"').tls_files
    assert files is not None
    assert (files.certificate, files.key, files.client_ca) == (Path("c"), Path("k"), Path("a"))
    files = config_of(tls_cert="c", tls_key="k").tls_files
    assert files is not None
    assert files.client_ca is None


WRONG = [
    ('[address_map]\n"10.0.0" = "P"', r"relay.toml: address_map: '10.0.0' does not appear to be"),
    ('[address_map]\n"10.0.0.5" = "PQ"', r"relay.toml: address_map.10.0.0.5: an id is one printable"),
    ("[principals.arm]\nuid = 0\nids = 'R-P'", r"relay.toml: principals.arm.ids: the range 'R-P' runs backwards"),
    ("[principals.arm]\nuid = 0\nto = 'abc'", r"relay.toml: principals.arm.to: 'abc' is neither an id"),
    ("[principals.arm]\naddress = '10/8'", r"relay.toml: principals.arm.address: expected a network"),
    ("[principals.arm]\nids = 'a'", r"relay.toml: principals.arm: needs exactly one of uid"),
    ("[principals.arm]\nuid = 0\ncertificate = 'a'", r"relay.toml: principals.arm: needs exactly one of uid"),
    ("tls = ['1']", r"a TLS listener needs tls_cert and tls_key"),
    ("tls_cert = 'c'", r"tls_key is missing: TLS needs both"),
    ("tls_key = 'k'", r"tls_cert is missing: TLS needs both"),
    ("tls_client_ca = 'a'", r"tls_cert is missing: TLS needs both"),
    ("queue_bytes = 0", r"relay.toml: queue_bytes: must be from 2 to 1073741824, not 0"),
]


@pytest.mark.parametrize(("text", "complaint"), WRONG)
def test_what_has_no_meaning_is_wrong_usage_and_says_where(text: str, complaint: str) -> None:
    with pytest.raises(click.UsageError, match=complaint):
        config_of(text)


@pytest.mark.parametrize(
    ("written", "known"),
    [("::ffff:10.0.0.5", "10.0.0.5"), ("::FFFF:a00:5", "10.0.0.5"), ("fd00::5", "fd00::5"), ("10.0.0.5", "10.0.0.5")],
)
def test_addresses_are_known_as_peers_are(written: str, known: str) -> None:
    assert parse_ip(written) == ip_address(known)
    assert parse_network(written) == ip_network(known)


def test_a_network_that_is_mapped_into_ipv6_is_the_ipv4_network() -> None:
    assert parse_network("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert parse_network("::ffff:0:0/96") == ip_network("0.0.0.0/0")
    assert parse_network("::/0") == ip_network("::/0")


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::%eth0/64"])
def test_a_zone_is_refused_because_peers_have_none(text: str) -> None:
    with pytest.raises(ValueError, match="leave out the zone %eth0"):
        parse_network(text)


def test_an_address_that_stands_twice_in_the_map_is_refused() -> None:
    with pytest.raises(click.UsageError, match=r"address_map\.::ffff:10\.0\.0\.5: is 10\.0\.0\.5, which has an id"):
        config_of('[address_map]\n"10.0.0.5" = "A"\n"::ffff:10.0.0.5" = "B"')


def test_a_library_user_gets_an_error_for_an_address_that_no_peer_has() -> None:
    with pytest.raises(ConfigError, match=r"^allow ::ffff:a00:0/104: no peer is known by this address: write 10\.0"):
        Config(allow=(ip_network("::ffff:10.0.0.0/104"),))
    with pytest.raises(ConfigError, match=r"^address_map\.fe80::1%eth0: leave out the zone"):
        Config(address_map={ip_address("fe80::1%eth0"): 65})
    with pytest.raises(ConfigError, match=r"^principals\.x\.address: no peer"):
        Config(principals=(Principal(name="x", address=ip_network("::ffff:10.0.0.5")),))


@pytest.mark.parametrize("uid", [-1, 2**32 - 1])
def test_a_uid_that_no_user_has_is_refused(uid: int) -> None:
    with pytest.raises(click.UsageError, match=rf"principals\.x\.uid: must be from 0 to 4294967294, not {uid}$"):
        config_of(f"[principals.x]\nuid = {uid}")


@pytest.mark.parametrize("proofs", [{}, {"uid": 1, "certificate": "arm"}])
def test_a_library_user_gets_an_error_for_a_principal_with_no_proof_or_with_two(proofs: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"^principals\.x needs exactly one of uid, certificate, token_file, address$"
    ):
        Principal(name="x", **proofs)
