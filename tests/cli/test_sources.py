"""Settings from command line, environment and file: which counts, and what is said about a wrong one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest

from triorelay import _files
from triorelay.cli._sources import load_settings
from triorelay.protocol import ConfigError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a configuration file, relative, as people give it."""
    monkeypatch.chdir(tmp_path)
    return Path("relay.toml")


def test_nothing_given_is_all_defaults() -> None:
    given = load_settings({"tcp": (), "overflow": None}, {}, None)
    assert given.settings.overflow == "wait"
    assert given.said == {}


def test_command_line_counts_before_environment_before_file(file: Path) -> None:
    file.write_text('overflow = "drop"\nqueue_bytes = 1\nstall_timeout = 1\ntcp = ["1", "2"]\n')
    environment = {"TRIORELAY_QUEUE_BYTES": "22", "TRIORELAY_STALL_TIMEOUT": "2.5", "TRIORELAY_TCP": "3, 4"}
    given = load_settings({"stall_timeout": "333", "tcp": ("5",)}, environment, str(file))
    settings = given.settings
    assert (settings.overflow, settings.queue_bytes, settings.stall_timeout) == ("drop", 22, 333)
    assert settings.tcp == ("5",)
    assert {key: one.place for key, one in given.said.items()} == {
        "overflow": "relay.toml: overflow",
        "queue_bytes": "TRIORELAY_QUEUE_BYTES",
        "stall_timeout": "--stall-timeout",
        "tcp": "--tcp",
    }


def test_a_list_in_the_environment_has_commas() -> None:
    settings = load_settings({}, {"TRIORELAY_ALLOW": "private, 100.64.0.0/10"}, None).settings
    assert settings.allow == ("private", "100.64.0.0/10")


def test_an_empty_variable_is_not_given() -> None:
    assert load_settings({}, {"TRIORELAY_TCP": " ", "TRIORELAY_OVERFLOW": ""}, None).said == {}


def test_the_complete_file_of_the_documentation_is_read(file: Path) -> None:
    file.write_text("""
        unix = ["/run/triorelay/server_socket"]
        tcp = ["9734"]
        tls = ["9735"]
        tls_cert = "relay.pem"
        tls_key = "relay.key"
        tls_client_ca = "ca.pem"
        allow = ["private", "100.64.0.0/10"]
        overflow = "wait"
        queue_bytes = 65536

        [address_map]
        "10.0.0.5" = "P"

        [principals.planner]
        uid = 1000
        ids = "P-R,0x80-0x8f"
        to = "*"
        [principals.arm]
        certificate = "arm.robot.example"
        ids = "a"
        to = "P,b-d"
    """)
    settings = load_settings({}, {}, str(file)).settings
    assert settings.address_map == {"10.0.0.5": "P"}
    assert settings.principals["planner"].uid == 1000
    assert settings.principals["arm"].to == "P,b-d"


def test_what_a_file_names_lies_beside_it_and_what_others_name_in_the_working_directory(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('tls_cert = "relay.pem"\ntls_key = "/etc/relay.key"\ntls_client_ca = "ca.pem"\n')
    given = load_settings({"tls_client_ca": "ca.pem"}, {}, str(file))
    assert given.path("tls_cert", "relay.pem") == tmp_path / "relay.pem"
    assert given.path("tls_key", "/etc/relay.key") == Path("/etc/relay.key")
    assert given.path("tls_client_ca", "ca.pem") == Path("ca.pem")
    with pytest.raises(click.UsageError, match=r"relay.toml: tls_cert: no file can be called"):
        given.path("tls_cert", "relay\0.pem")


WRONG_IN_FILE = [
    ("queue_bites = 1", r"^relay.toml: queue_bites: unknown key; did you mean queue_bytes\?$"),
    ("queue-bytes = 1", r"unknown key; did you mean queue_bytes\?"),
    ("zzz = 1", r"zzz: unknown key; known are unix, tcp, "),
    ("[principals.arm]\ncert = 'a'", r"^relay.toml: principals.arm.cert: unknown key; did you mean certificate\?$"),
    ("queue_bytes = '1'", r"^relay.toml: queue_bytes: expected a whole number, not '1'$"),
    ("queue_bytes = 1.5", r"queue_bytes: expected a whole number, not 1.5"),
    ("queue_bytes = true", r"queue_bytes: expected a whole number, not True"),
    ("stall_timeout = '1'", r"stall_timeout: expected a number, not '1'"),
    ("tcp = 9734", r"tcp: expected a list of strings, not 9734"),
    ("take_over = 1", r"take_over: expected true or false, not 1"),
    ("tcp = ['9734', 9735]", r"^relay.toml: tcp\[1\]: expected a string, not 9735$"),
    ("overflow = 'maybe'", r"^relay.toml: overflow: expected wait or drop, not 'maybe'$"),
    ("overflow = 1", r"overflow: expected wait or drop, not 1"),
    ("socket_mode = 0o660", r"socket_mode: expected a string, not 432"),
    ("socket_group = 5", r"socket_group: expected a string, not 5"),
    ("address_map = 5", r"address_map: expected a table, not 5"),
    ("[address_map]\n'10.0.0.5' = 80", r"^relay.toml: address_map.10.0.0.5: expected a string, not 80$"),
    ("principals = []", r"principals: expected a table, not \[\]"),
    ("principals.arm = 'a'", r"principals.arm: expected a table, not 'a'"),
    ("[principals.arm]\nuid = 'root'", r"^relay.toml: principals.arm.uid: expected a whole number, not 'root'$"),
    (f"queue_bytes = {'9' * 400}", r"queue_bytes: expected a whole number, not a number of more than 64 bits$"),
    (f"stall_timeout = 0x{'f' * 5000}", r"stall_timeout: expected a number, not a number of more than 64 bits$"),
    (f"tcp = ['9734', 0x{'f' * 5000}]", r"tcp\[1\]: expected a string, not a number of more than 64 bits$"),
    (f"tcp = [[0x{'f' * 5000}]]", r"tcp\[0\]: expected a string, not something with a number of more than 64 bits$"),
    (f"tls_key = {{a = [0x{'f' * 5000}]}}", r"tls_key: expected a string, not something with a number of more than"),
    (f"tls = {{a = 0x{'f' * 5000}}}", r"tls: expected a list of strings, not something with a number of more than 64 "),
    (f"principals.arm.uid = {'9' * 400}", r"principals.arm.uid: expected a whole number, not a number of more than 64"),
    ("a = \n", r"^relay.toml: not TOML: .*line 1"),
    ("tcp = []\ntcp = []", r"not TOML: Cannot overwrite a value"),
    (f"queue_bytes = {'9' * 5000}", r"^relay.toml: not TOML: "),
    (f"tcp = {'[' * 5000}", r"^relay.toml: not TOML: "),
]


@pytest.mark.parametrize(("text", "complaint"), WRONG_IN_FILE)
def test_an_error_in_a_file_names_file_key_value_and_what_is_allowed(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(click.UsageError) as caught:
        load_settings({}, {}, str(file))
    assert re.search(complaint, caught.value.message), caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_text_is_named(file: Path) -> None:
    file.write_bytes(b"tcp\xff")
    with pytest.raises(click.UsageError, match=r"relay.toml: byte 3 is not UTF-8"):
        load_settings({}, {}, str(file))


def test_a_file_that_cannot_be_read_is_not_wrong_usage(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"relay.toml: No such file or directory; give --config"):
        load_settings({}, {}, str(file))


def test_an_error_in_the_environment_names_the_variable() -> None:
    with pytest.raises(click.UsageError) as caught:
        load_settings({}, {"TRIORELAY_MAX_PENDING": "few"}, None)
    assert caught.value.message == "TRIORELAY_MAX_PENDING: expected a whole number, not 'few'"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_pending", "+20", 20),
        ("stall_timeout", "2", 2.0),
        ("stall_timeout", "1e3", 1000.0),
        ("take_over", "True", True),
        ("take_over", "0", False),
        ("socket_mode", "0600", "0600"),
        ("handover", "1", "1"),
        ("overflow", "drop", "drop"),
    ],
)
def test_text_outside_a_file_is_read_as_what_the_setting_is(key: str, text: str, value: object) -> None:
    read = getattr(load_settings({}, {f"TRIORELAY_{key.upper()}": text}, None).settings, key)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("max_pending", "1.5", "a whole number"),
        ("max_pending", "9" * 5000, "a whole number"),
        ("stall_timeout", "soon", "a number"),
        ("take_over", "yes", "true or false"),
        ("overflow", "stop", "wait or drop"),
    ],
)
def test_text_outside_a_file_that_is_no_such_value_is_refused(key: str, text: str, expected: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        load_settings({}, {f"TRIORELAY_{key.upper()}": text}, None)
    assert caught.value.message == f"TRIORELAY_{key.upper()}: expected {expected}, not {text!r}"


def test_a_value_that_does_not_count_is_checked_too(file: Path) -> None:
    file.write_text("max_pending = 'few'")
    with pytest.raises(click.UsageError, match=r"relay.toml: max_pending"):
        load_settings({"max_pending": "5"}, {}, str(file))


def test_an_error_of_the_configuration_gets_its_place_in_front(file: Path) -> None:
    file.write_text("[principals.arm]\nids = 'a'")
    given = load_settings({"queue_bytes": "5"}, {}, str(file))
    located = [
        given.locate(ConfigError(text)).message
        for text in ("queue_bytes must be more", "principals.arm needs a proof", "stall_timeout is odd")
    ]
    assert located == [
        "--queue-bytes: must be more",
        "relay.toml: principals.arm: needs a proof",
        "stall_timeout is odd",
    ]


def test_a_byte_order_mark_in_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_bytes(b'\xef\xbb\xbfunix = ["s"]\n')
    assert load_settings({}, {}, str(file)).settings.unix == ("s",)


def test_a_fifo_that_nothing_writes_to_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match=r"fifo: it is a pipe, and its end did not come"):
        load_settings({}, {}, str(tmp_path / "fifo"))


def test_a_list_of_one_may_be_written_as_that_one(file: Path) -> None:
    file.write_text('tcp = "9734"\nadmin = "none"\n')
    settings = load_settings({}, {}, str(file)).settings
    assert (settings.tcp, settings.admin) == (("9734",), ("none",))


@pytest.mark.parametrize(
    ("options", "environment", "text", "reworded"),
    [
        ({"tls_cert": "c"}, {}, "tls_cert: cannot read c", "--tls-cert: cannot read c"),
        ({}, {"TRIORELAY_TLS_KEY": "k"}, "tls_key: cannot read k", "TRIORELAY_TLS_KEY: cannot read k"),
        ({"tls_cert": "c"}, {}, "tls_cert, tls_key: c, k: no match", "--tls-cert, --tls-key: c, k: no match"),
        ({"cluster": ("nats://h",)}, {}, "cluster: the engine is away", "--cluster: the engine is away"),
        ({}, {}, "a TLS listener needs tls_cert and tls_key", "a TLS listener needs --tls-cert and --tls-key"),
        ({}, {}, "principals.a.token_file: cannot read it", "principals.a.token_file: cannot read it"),
        ({"admin": ("1",)}, {}, "admin endpoint: cannot listen", "admin endpoint: cannot listen"),
        ({"tls_cert": "c"}, {}, "cannot open /etc/tls_cert.pem", "cannot open /etc/tls_cert.pem"),
    ],
)
def test_a_message_calls_a_setting_as_it_was_given(
    options: dict[str, object], environment: dict[str, str], text: str, reworded: str
) -> None:
    assert load_settings(options, environment, None).reword(text) == reworded


def test_a_message_about_a_file_s_setting_names_the_file_and_the_key(file: Path) -> None:
    file.write_text('tls_cert = "c"\n')
    loaded = load_settings({}, {}, str(file))
    assert loaded.reword("tls_cert, tls_key: c: no match") == "relay.toml: tls_cert, tls_key: c: no match"
    assert loaded.reword("TLS needs tls_cert and tls_key") == "TLS needs tls_cert and tls_key"
