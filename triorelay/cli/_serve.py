"""`triorelay serve`: its options are the settings."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

from ._settings import OPTIONS
from ._sources import load_settings

EPILOG = """
Every option may also be given as TRIORELAY_<OPTION> in the environment, a list with commas, or as a key in the file
that --config names. The command line overrides the environment, and the environment overrides the file.

The relay also listens on sockets from systemd (LISTEN_FDS), and then server_socket is no default. A socket at an
address that --unix, --tcp or --tls names is used for it: so --tls 9735 speaks TLS on a socket with that port. The
relay does not change the files, owners and permissions of such sockets.

\b
Examples:
  triorelay serve --unix server_socket --tcp 9734
  triorelay serve --tcp localhost:9734 --overflow drop
  triorelay serve --config relay.toml --log-format json
"""

Command = Callable[..., Any]


def _settings_options(command: Command) -> Command:
    for field in reversed(OPTIONS):
        default = "" if field.repeatable or field.default in (None, False, "") else f" Default: {field.default}."
        text = f"{field.help}{default}"
        if field.type is bool:
            option = click.option(field.flag, field.key, is_flag=True, default=None, help=text)
        else:
            kind: click.ParamType[Any] | None = click.Choice(field.choices) if field.choices else None
            if field.metavar in ("FILE", "PATH"):
                # For the shell, which completes it; that it can be used is found where it is used.
                kind = click.Path(readable=False)
            option = click.option(
                field.flag, field.key, type=kind, multiple=field.repeatable, metavar=field.metavar or None, help=text
            )
        command = option(command)
    return command


@click.command(epilog=EPILOG, context_settings={"max_content_width": 100})
@_settings_options
@click.option(
    "--config",
    type=click.Path(readable=False),
    metavar="FILE",
    envvar="TRIORELAY_CONFIG",
    help="A TOML file with any of these, and more.",
)
def serve(config: str | None, **options: object) -> int:
    """Run a relay until SIGTERM or SIGINT, which drains it; a second one stops it at once.

    On SIGHUP it reads the configuration again: principals, allowed networks, address map, TLS files.
    """
    loaded = load_settings(options, os.environ, config)

    # Imported only now: a wrong option should be reported at once, and Trio takes half of the time until the first
    # frame. Modules for an admin endpoint or a cluster are imported only with one.
    from ..handover import Succession, inherit
    from ..protocol import ConfigError
    from ..relay import Config, Prepared, Remote, Service, prepare
    from ._config import admin_configs, cluster_config, ring_of
    from ._effect import effective_config, refuse_lost
    from ._flight import FlightRecorder
    from ._handover import HandoverProcess, handover_path
    from ._run_relay import RelayProcess
    from ._systemd import Supervisor, meant_for, take_sockets

    other = meant_for(os.environ)
    sockets = take_sockets(os.environ)

    def read_again(old: Config) -> Prepared:
        try:
            again = load_settings(options, os.environ, config)
            new = effective_config(again, sockets)
        except click.UsageError as error:
            raise ConfigError(error.format_message()) from None
        refuse_lost(loaded, again, old, new)
        return prepare(new)

    settings, ring = loaded.settings, ring_of(loaded)

    def services_of(relay: Config) -> list[Service]:
        admin = admin_configs(loaded, relay, sockets)
        if not admin:
            return [FlightRecorder(ring)]
        from ..admin import Admin

        try:
            return [FlightRecorder(ring), Admin(*admin, ring=ring)]
        except ConfigError as error:
            raise ConfigError(loaded.reword(str(error))) from None

    # Sockets that a supervisor gave to the first relay of a succession are known only once this one takes over.
    relay = effective_config(loaded, sockets or None if settings.take_over else sockets)
    path = handover_path(settings, relay, sockets)
    services = services_of(relay)
    remote: Remote | None = None
    if (realm := cluster_config(loaded)) is not None:
        from ..cluster import Cluster
        from ..cluster.nats import NatsBackplane

        remote = Cluster(realm, NatsBackplane(realm))
    supervisor = Supervisor.take(os.environ)
    succession: Succession | None = None
    if settings.take_over:
        if path is None:
            raise ConfigError("take_over needs to know where: give --handover PATH, or a Unix socket (--unix)")
        succession = inherit(path)
        # If this fails, the old relay gets the reason and continues, as later if the relay cannot be made.
        with ExitStack() as failing:
            if succession is not None:
                failing.enter_context(succession)
                sockets = succession.sockets or sockets
            relay = effective_config(loaded, sockets)
            services = services_of(relay)
            failing.pop_all()
    return RelayProcess(
        relay,
        log_format=settings.log_format,
        log_level=settings.log_level,
        read_again=read_again,
        services=services,
        remote=remote,
        sockets=sockets,
        sockets_of=other,
        handover=HandoverProcess(path, succession, supervisor, required=settings.handover is not None),
        reword=loaded.reword,
    ).run()
