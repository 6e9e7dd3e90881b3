"""Listening by TCP: on what can be had of a name's addresses, and on all of an address."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from triorelay.protocol import ConfigError
from triorelay.relay import Config
from triorelay.relay._listeners import listen_tcp, open_listeners

NOT_OURS = ("2001:db8::1", "192.0.2.1")
"""Documentation addresses, which no machine has."""


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of this test, and their addresses."""
    names: dict[str, list[str]] = {}
    as_usual = socket.getaddrinfo

    def look_up(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        return [found for name in names.get(host, [host]) for found in as_usual(name, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return names


@pytest.mark.parametrize("other", NOT_OURS)
def test_the_available_addresses_of_a_name_are_listened_on_and_the_others_are_logged(
    resolve: dict[str, list[str]], caplog: pytest.LogCaptureFixture, other: str
) -> None:
    resolve["two.example"] = [other, "127.0.0.1"]
    with caplog.at_level(logging.WARNING, "triorelay"):
        (listener,) = listen_tcp("two.example", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    (record,) = caplog.records
    assert record.message == "not listening at one address"
    assert record.fields["host"] == "two.example"  # type: ignore[attr-defined]
    assert record.fields["address"] == other  # type: ignore[attr-defined]


def test_without_any_available_address_it_is_an_error(resolve: dict[str, list[str]]) -> None:
    resolve["none.example"] = list(NOT_OURS)
    with pytest.raises(ConfigError, match=r"cannot listen on tcp none\.example:0: Cannot assign .*no interface"):
        listen_tcp("none.example", 0)


def test_one_that_another_program_has_is_an_error_because_clients_would_reach_that_one(
    resolve: dict[str, list[str]],
) -> None:
    # An address of its own: at 127.0.0.2 a client of another test may have left the port in use.
    resolve["two.example"] = ["127.1.2.3", "127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match="Address already in use"):
            listen_tcp("two.example", port)
        # Nothing stays open.
        with socket.create_server(("127.1.2.3", port)):
            pass


def test_an_impossible_host_name_is_reported_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^cannot listen on tcp a\.\.b:0: "):
        listen_tcp("a..b", 0)


def link_local() -> str:
    """Return an IPv6 address of this machine that means something only together with its interface."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, interface = line.split()
        if scope == "20":
            parts = ":".join(digits[place : place + 4] for place in range(0, 32, 4))
            return f"{socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, parts))}%{interface}"
    pytest.skip("this machine has no link-local address")


def test_a_link_local_address_keeps_its_interface() -> None:
    address = link_local()
    (opened,) = listen_tcp(address, 0)
    port = opened.getsockname()[1]
    with opened, open_listeners(Config(tcp=((address, port),)), [opened]) as listeners:
        # The socket that was handed over serves for the address: there is no second one.
        assert [listener.address for listener in listeners] == [f"tcp:[{address}]:{port}"]
        with socket.create_connection((address, port)):
            pass
