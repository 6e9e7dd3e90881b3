"""Where an admin endpoint can be, as it is typed."""

from __future__ import annotations

import pytest

from triorelay.cli._options import parse_admin_address
from triorelay.protocol import Address, TcpAddress, UnixAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9736", TcpAddress("127.0.0.1", 9736)),
        ("127.0.0.1:9736", TcpAddress("127.0.0.1", 9736)),
        ("tcp:relay.example:80", TcpAddress("relay.example", 80)),
        ("[::1]:9736", TcpAddress("::1", 9736)),
        ("unix:server_socket.admin", UnixAddress("server_socket.admin")),
        ("/run/admin", UnixAddress("/run/admin")),
        ("./9736", UnixAddress("./9736")),
        ("unix:@relay.admin", UnixAddress("@relay.admin")),
    ],
)
def test_it_is_typed_as_a_relay_s_address_and_a_bare_port_is_of_this_host(text: str, address: Address) -> None:
    assert parse_admin_address(text) == address


@pytest.mark.parametrize("text", ["", "65536", ":9736", "localhost:", "tls:localhost:9736", "unix:"])
def test_what_names_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port|path|TLS"):
        parse_admin_address(text)
