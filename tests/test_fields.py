"""Settings that a Python program gives have the types that they declare, or are refused by name."""

from __future__ import annotations

import math
from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from triorelay.admin import AdminConfig
from triorelay.client import Backoff
from triorelay.cluster import ClusterConfig
from triorelay.protocol import ConfigError, UnixAddress
from triorelay.relay import Config, Principal, TlsFiles
from triorelay.relay._tls import server_context

KINDS: dict[type, dict[str, object]] = {
    Config: {},
    Principal: {"name": "arm", "uid": 1},
    TlsFiles: {"certificate": Path("c"), "key": Path("k")},
    ClusterConfig: {"urls": ("nats://localhost:4222",)},
    AdminConfig: {"address": UnixAddress("s")},
    Backoff: {},
}


def make(kind: type, **given: object) -> None:
    made = kind(**KINDS[kind] | given)
    if isinstance(made, TlsFiles):
        server_context(made)


def every_field() -> list[tuple[type, str]]:
    return [(kind, field.name) for kind in KINDS for field in fields(kind)]


@pytest.mark.parametrize(("kind", "name"), every_field(), ids=lambda value: getattr(value, "__name__", value))
def test_each_field_refuses_what_no_setting_is(kind: type, name: str) -> None:
    expected = ValueError if kind is Backoff else ConfigError
    with pytest.raises(expected, match=rf"^([\w.<> ]+\.)?{name} must be .*, not <object object at \w+>$"):
        make(kind, **{name: object()})


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"overflow": "x"}, "overflow must be 'wait' or 'drop', not 'x'"),
        ({"overflow": ["drop"]}, r"overflow must be 'wait' or 'drop', not \['drop'\]"),
        ({"duplicate": ""}, "duplicate must be 'reject' or 'replace', not ''"),
        ({"queue_bytes": "65536"}, "queue_bytes must be a whole number, not '65536'"),
        ({"queue_bytes": 1e4}, "queue_bytes must be a whole number, not 10000.0"),
        ({"queue_bytes": True}, "queue_bytes must be a whole number, not True"),
        ({"stall_timeout": math.nan}, "stall_timeout must be a number, not nan"),
        ({"stall_timeout": -1}, "stall_timeout must be from 0 to 1000000, not -1"),
        ({"stall_timeout": 10**401}, "stall_timeout must be a number, not a number of more than 64 bits"),
        ({"queue_bytes": 10**400}, "queue_bytes must be a whole number, not a number of more than 64 bits"),
        ({"unix": "server_socket"}, r"unix must be a tuple \(each item: a str\), not 'server_socket'"),
        ({"tcp": ("localhost", 9735)}, r"tcp must be a tuple \(each item: \(a str or None, a whole number\)\), not"),
        ({"tcp": (("localhost", 70000),)}, "a port must be from 0 to 65535, not 70000"),
        ({"tls": ((None, -1),)}, "a port must be from 0 to 65535, not -1"),
        ({"allow": ("10.0.0.0/8",)}, r"allow must be a tuple \(each item: an IPv4Network or an IPv6Network\), not"),
        ({"socket_group": -1}, "socket_group must be from 0 to 4294967294, not -1"),
        ({"share": {0}}, "share: an id is a number from 1 to 255, not 0"),
        ({"share": "A-Z"}, r"share must be a set \(each item: a whole number\), not 'A-Z'"),
        ({"address_map": {ip_address("127.0.0.1"): 256}}, "address_map: an id is a number from 1 to 255, not 256"),
        ({"address_map": {"127.0.0.1": 65}}, r"address_map must be a mapping \(each item: "),
        ({"principals": ("arm",)}, r"principals must be a tuple \(each item: a Principal\), not"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_in_one_line_that_says_what_is_right(setting: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{text}[^\n]*$"):
        Config(**setting)  # type: ignore[arg-type]


def test_a_principal_names_itself_in_what_is_wrong_with_it() -> None:
    with pytest.raises(ConfigError, match=r"^principals\.arm\.uid must be a whole number or None, not 'root'$"):
        Principal(name="arm", uid="root")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^principals\.arm\.to: an id is a number from 1 to 255, not 300$"):
        Principal(name="arm", uid=1, to=frozenset({300}))


def test_what_works_as_well_is_taken() -> None:
    config = Config(
        unix=["s"],  # type: ignore[arg-type]
        tcp=[["localhost", 0]],  # type: ignore[arg-type]
        share={65},  # type: ignore[arg-type]
        allow=[ip_network("::1/128")],  # type: ignore[arg-type]
        stall_timeout=3,
        tls_files=TlsFiles(certificate="c", key="k"),  # type: ignore[arg-type]
    )
    assert list(config.unix) == ["s"]


def test_a_value_that_holds_a_number_too_long_to_print_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^unix must be a tuple .*, not something with a number of more than 64"):
        Config(unix=([10**5000],))  # type: ignore[arg-type]
