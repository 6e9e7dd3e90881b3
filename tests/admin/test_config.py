"""Where an endpoint may be, and what its token must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triorelay.admin import Admin, AdminConfig
from triorelay.relay import ConfigError, TcpAddress, UnixAddress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_loopback_no_token_is_needed(host: str) -> None:
    assert AdminConfig(address=TcpAddress(host, 9736)).read_token() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "relay.example", "localhost.example"])
def test_off_loopback_a_token_is_needed(host: str, token_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^admin at tcp:\S+ can be reached by others: .*--admin-token-file"):
        AdminConfig(address=TcpAddress(host, 9736))
    assert AdminConfig(address=TcpAddress(host, 9736), token_file=token_file).read_token()


def test_tls_is_refused(token_file: Path) -> None:
    with pytest.raises(ConfigError, match="no TLS"):
        AdminConfig(address=TcpAddress("127.0.0.1", 9736, tls=True), token_file=token_file)


def test_white_space_around_a_token_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\n 0123456789abcdef \n")
    assert AdminConfig(address=UnixAddress("s"), token_file=path).read_token() == b"0123456789abcdef"


@pytest.mark.parametrize("token", [b"", b"0123456789abcde", b"x" * 256])
def test_a_token_of_wrong_length_is_refused(tmp_path: Path, token: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(token)
    with pytest.raises(ConfigError, match=f"16 to 255 bytes, not {len(token)}$"):
        Admin(AdminConfig(address=UnixAddress("s"), token_file=path))


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"admin_token_file: cannot read \S+/nothing: No such file"):
        Admin(AdminConfig(address=UnixAddress("s"), token_file=tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["", "two words", "http://relay.example", "relay.example:80", "r\u00e9seau.example"])
def test_a_host_that_no_request_can_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^admin_host needs a name such as relay\.example"):
        AdminConfig(address=TcpAddress("127.0.0.1", 9736), hosts=(name,))
