"""The `triorelay` command: a group that loads a subcommand only when it is used."""

from importlib import import_module

import click

from .. import _build, _version

COMMANDS = {
    "serve": ("_serve", "Run a relay until SIGTERM or Ctrl-C."),
    "send": ("_client", "Send bytes to a client."),
    "receive": ("_receive", "Print what arrives."),
    "pipe": ("_pipe", "Connect standard input and output with another client."),
    "call": ("_calls", "Call a client and print its reply."),
    "answer": ("_calls", "Answer calls, by a command."),
    "who": ("_client", "Print the ids of the connected clients."),
    "ping": ("_client", "Measure round trips to a relay."),
    "bench": ("_client", "Measure how quick a relay is."),
    "status": ("_admin", "Show the connected clients and what they sent."),
    "top": ("_admin", "Watch a relay in the terminal."),
    "monitor": ("_admin", "Show frames as they are routed."),
    "record": ("_record", "Write frames to a file as they are routed."),
    "show": ("_record", "Print a recording."),
    "play": ("_play", "Send the frames of a recording again."),
    "close": ("_admin", "Close a client's session."),
    "health": ("_admin", "Tell whether a relay is alive."),
    "check": ("_check", "Validate a configuration, and show what its policy allows."),
}
"""Name of each command, in the order of `--help`: the module that holds it under the same name, and what it does."""


class LazyGroup(click.Group):
    """A group whose `--help` and completion import no command: it holds only what they show of each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find and load the command; for an unknown name, suggest the nearest."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # only here: it takes a millisecond

            near = get_close_matches(args[0], COMMANDS, n=1)
            if not near or args[0].startswith("-"):
                raise
            raise click.UsageError(f"no command is called {args[0]!r}; did you mean {near[0]}?", error.ctx) from None
        return name, command and load(args[0]), rest


def load(name: str) -> click.Command:
    """Return the command of this name, with its options."""
    command: click.Command = getattr(import_module(f".{COMMANDS[name][0]}", __package__), name)
    return command


EPILOG = """
\b
Completion of commands, options and ids that are there, in a line of the shell's startup file:
  bash  eval "$(_TRIORELAY_COMPLETE=bash_source triorelay)"     in ~/.bashrc
  zsh   eval "$(_TRIORELAY_COMPLETE=zsh_source triorelay)"      in ~/.zshrc
  fish  _TRIORELAY_COMPLETE=fish_source triorelay | source      in ~/.config/fish/config.fish
"""


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name, short_help=summary) for name, (_, summary) in COMMANDS.items()},
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(f"{_version.__version__} ({_build.BUILD})", message="triorelay %(version)s")
def triorelay() -> None:
    """A relay for small messages between processes and hosts: one byte of address, one byte of data."""
