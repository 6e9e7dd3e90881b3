"""Addresses: `unix:PATH`, `tcp:HOST:PORT`, `tls:HOST:PORT`, and the short forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.protocol import Address, TcpAddress, UnixAddress, parse_address
from triorelay.protocol._addresses import parse_host_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:server_socket", UnixAddress("server_socket")),
        ("unix:/run/relay", UnixAddress("/run/relay")),
        ("unix:///run/relay", UnixAddress("/run/relay")),
        ("unix://run/relay", UnixAddress("run/relay")),
        ("unix:tcp:x", UnixAddress("tcp:x")),
        ("server_socket", UnixAddress("server_socket")),
        ("tcp", UnixAddress("tcp")),
        ("./a:b", UnixAddress("./a:b")),
        ("unix:@relay", UnixAddress("@relay")),
        ("@relay", UnixAddress("@relay")),
        ("unix:./@relay", UnixAddress("./@relay")),
        ("//run/relay", UnixAddress("//run/relay")),
        ("tcp:localhost:9734", TcpAddress("localhost", 9734)),
        ("tcp://localhost:9734", TcpAddress("localhost", 9734)),
        ("tls:relay.example:1", TcpAddress("relay.example", 1, tls=True)),
        ("tls://[::1]:65535", TcpAddress("::1", 65535, tls=True)),
        ("tcp:[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("10.0.0.5:9734", TcpAddress("10.0.0.5", 9734)),
        ("[::1]:9734", TcpAddress("::1", 9734)),
        ("localhost:9734", TcpAddress("localhost", 9734)),
    ],
)
def test_an_address_is_read_as_documented(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "needs a path"),
        ("unix:", "needs a path"),
        ("unix://", "needs a path"),
        ("unix:@", "needs a path"),
        ("unix:a\0b", "needs a path"),
        ("tcp:", "a port is a number from 1 to 65535"),
        ("tcp:localhost", "a port is a number"),
        ("tcp:localhost:", "a port is a number"),
        ("tcp:localhost:0", "a port is a number from 1"),
        ("tcp:localhost:65536", "a port is a number"),
        ("tcp:localhost:-1", "a port is a number"),
        ("tcp:localhost:009734", "a port is a number"),
        ("tcp:localhost:+1", "a port is a number"),
        ("tcp:localhost: 1", "a port is a number"),
        ("tcp:localhost:1_0", "a port is a number"),
        ("tcp:localhost:\uff11", "a port is a number"),
        ("tcp:localhost:http", "a port is a number"),
        ("localhost:http", "a port is a number"),
        ("tcp::9734", "needs a host and a port, as in tcp:localhost:9734"),
        (":9734", "needs a host and a port, as in tcp:localhost:9734"),
        ("tls:9734", "needs a host and a port, as in tls:localhost:9734"),
        ("::1:9734", "goes in brackets"),
        ("[::1]", "goes in brackets"),
        ("[]:9734", "goes in brackets"),
        ("[localhost]:9734", "goes in brackets"),
        ("[[::1]]:9734", "goes in brackets"),
        ("a]b:9734", "goes in brackets"),
        ("tcp:local host:9734", "a host is a name or an IP address"),
        ("tcp:local/host:9734", "a host is a name or an IP address"),
        ("tcp:local\0host:9734", "a host is a name or an IP address"),
        ("tcp:local\nhost:9734", "a host is a name or an IP address"),
        ("tcp:\udcff:9734", "a host is a name or an IP address"),
        ("tcp:a..b:9734", "no host can be called"),
        (f"tcp:{'a' * 64}:9734", "no host can be called"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_address(text)


@pytest.mark.parametrize(
    "path", ["A", "/run/relay", "//run/relay", "///x", "a:1", "tcp:a:1", "unix:a", "tls://x", " ", "\udcff"]
)
def test_a_unix_path_is_shown_so_that_it_is_read_again(path: str) -> None:
    assert parse_address(str(UnixAddress(path))) == UnixAddress(path)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (UnixAddress("server_socket"), "unix:server_socket"),
        (TcpAddress("localhost", 9734), "tcp:localhost:9734"),
        (TcpAddress("::1", 9734, tls=True), "tls:[::1]:9734"),
        (TcpAddress("::", 0), "tcp:[::]:0"),
    ],
)
def test_an_address_is_shown_with_its_scheme(address: Address, text: str) -> None:
    assert str(address) == text


@given(
    st.one_of(
        st.text(max_size=30), st.from_regex(r"((unix|tcp|tls):)?(//)?[a-z:/\[\]]{0,8}(:[0-9]{0,6})?", fullmatch=True)
    )
)
def test_any_text_is_a_value_error_or_an_address_that_is_read_again_as_shown(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9734", TcpAddress("", 9734)),
        (":9734", TcpAddress("", 9734)),
        ("0", TcpAddress("", 0)),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        ("[::]:9734", TcpAddress("::", 9734)),
    ],
)
def test_a_listener_may_leave_out_the_host_and_let_the_kernel_choose_the_port(text: str, expected: TcpAddress) -> None:
    assert parse_host_port(text) == expected


def test_a_listener_of_tls_says_so() -> None:
    assert parse_host_port("9735", tls=True) == TcpAddress("", 9735, tls=True)


def test_port_0_lets_the_kernel_choose_unless_excluded() -> None:
    assert parse_host_port("0").port == 0
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_host_port("0", lowest_port=1)


@given(st.text(max_size=7))
def test_a_port_is_decimal_and_in_range_or_a_value_error(text: str) -> None:
    try:
        port = parse_host_port(f"host:{text}").port
    except ValueError:
        return
    assert 0 <= port <= 65535
    assert text.strip("0123456789") == ""


def test_an_at_sign_in_front_makes_a_name_of_the_abstract_namespace() -> None:
    assert UnixAddress("@relay").is_abstract
    assert UnixAddress("@relay").name == b"\0relay"
    assert not UnixAddress("./@relay").is_abstract
    assert UnixAddress("./@rel\udcffay").name == b"./@rel\xffay"
