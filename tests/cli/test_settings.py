"""The list of settings, against what the interface promises."""

from __future__ import annotations

import click

from triorelay.cli._serve import serve
from triorelay.cli._settings import OPTIONS, Settings

DEFAULTS = {
    "unix": (),
    "tcp": (),
    "tls": (),
    "tls_cert": None,
    "tls_key": None,
    "tls_client_ca": None,
    "allow": ("private",),
    "socket_mode": "0660",
    "socket_group": None,
    "duplicate": "reject",
    "overflow": "wait",
    "queue_bytes": 65536,
    "stall_timeout": 10,
    "hello_timeout": 5,
    "drain_timeout": 5,
    "hold_frames": 0,
    "hold_time": 10,
    "max_pending": 512,
    "max_pending_per_address": 255,
    "max_clients_per_principal": 0,
    "log_format": "text",
    "log_level": "info",
}
REPEATABLE = {"unix", "tcp", "tls", "allow"}


def test_every_setting_has_the_default_of_the_interface() -> None:
    settings = Settings()
    assert DEFAULTS.items() <= {option.key: getattr(settings, option.key) for option in OPTIONS}.items()
    assert not settings.address_map
    assert not settings.principals


def test_names_follow_from_the_key() -> None:
    option = next(option for option in OPTIONS if option.key == "max_pending_per_address")
    assert option.flag == "--max-pending-per-address"
    assert option.variable == "TRIORELAY_MAX_PENDING_PER_ADDRESS"


def test_the_command_offers_every_setting_and_the_configuration_file() -> None:
    parameters = {parameter.name: parameter for parameter in serve.params if isinstance(parameter, click.Option)}
    assert set(parameters) == {option.key for option in OPTIONS} | {"config"}
    assert {name for name, parameter in parameters.items() if parameter.multiple} >= REPEATABLE
    assert all(parameter.help for parameter in parameters.values())
