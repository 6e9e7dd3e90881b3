"""Shared by the commands: parameter types, options, completion of an id, and running their work under Trio."""

import math
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from shlex import quote
from typing import Any, TypeVar

import click
import trio

from ..protocol import Address, RelayError, TcpAddress, id_name, parse_address, parse_host_port, parse_id
from ._probe import ADMIN_DEFAULT

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

SORT_KEYS = {"i": "id", "s": "sent", "r": "received", "d": "queue", "w": "waiting"}
"""By what `top` sorts clients, by key; d is for depth, because q quits."""
COMPLETION_PATIENCE = 0.5
"""Seconds after which completion gives up on a relay that does not answer: a user has pressed a key and waits."""
FILE = click.Path(dir_okay=False)


class Seconds(click.FloatRange):
    """A number of seconds within bounds; unlike `float` it refuses "nan"."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return number


def param_type(metavar: str, parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a click parameter type that is `parse`; the text of its ValueError becomes the usage error."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    # Click shows the function's name as the placeholder of the value in a help text.
    convert.__name__ = metavar
    return convert


ID = param_type("id", parse_id)
ADDRESS = param_type("address", parse_address)


class AdminOption(click.Option):
    """An option that shares the relay's variable, which may list several addresses: the first one counts."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        words = (super().resolve_envvar_value(ctx) or "").split(",")
        return next((word.strip() for word in words if word.strip() not in ("", "none")), None)


def parse_unix(text: str) -> str:
    """Return the path of a Unix socket, which may be written as its address is."""
    return text.removeprefix("unix://").removeprefix("unix:")


def parse_admin_address(text: str) -> Address:
    """Return the address of an admin endpoint: a bare port is one of 127.0.0.1, and it speaks no TLS."""
    if text.isdecimal():
        return TcpAddress("127.0.0.1", parse_host_port(text).port)
    address = parse_address(text)
    if isinstance(address, TcpAddress) and address.tls:
        raise ValueError(f"the admin endpoint speaks no TLS, so it cannot be {text!r}")
    return address


ADMIN_ADDRESS = param_type("address", parse_admin_address)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` and return what it returns.

    SIGINT raises KeyboardInterrupt at a checkpoint, like a cancellation. Anywhere else it could strike between the
    making of a coroutine and its start, or in the middle of a step that must not be cut in two.
    """
    try:
        return trio.run(work, restrict_keyboard_interrupt_to_checkpoints=True)
    except KeyboardInterrupt:
        raise interrupted() from None


def interrupted() -> click.Abort:
    """Return what Ctrl-C ends a command with. At a KeyboardInterrupt click itself writes a line, and may wait."""
    if sys.stderr.isatty():
        click.echo(err=True)  # after the ^C that the terminal shows
    return click.Abort()


def gathered(
    argument: str, make: Callable[..., object], names: Iterable[str], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Return a decorator that adds `options`, in the order of `--help`.

    The command gets as `argument` what `make` returns for their values that have these `names`.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_one(**values: object) -> object:
            made = make(**{name: values.pop(name) for name in names})
            return command(**{argument: made}, **values)

        decorated: Any = with_one
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def completing(place: str, ask: Callable[[dict[str, Any]], Awaitable[Iterable[int]]]) -> Completer:
    """Return what completes an id: those that `ask` finds, none if it fails or takes `COMPLETION_PATIENCE`.

    Args:
        place: the parameter with the address; without a valid one nothing is offered.
        ask: returns the ids, given the parameters.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        async def in_time() -> Iterable[int]:
            with trio.move_on_after(COMPLETION_PATIENCE):
                return await ask(ctx.params)
            return ()

        if ctx.params[place] is None:
            return []
        try:
            names = [id_name(id) for id in sorted(set(run(in_time)))]
        except (OSError, RelayError):
            return []
        # What a shell would interpret (`*`, `$`) is left out.
        return [name for name in names if name.startswith(incomplete) and quote(name) == name]

    return complete


view_options = gathered(
    "as_json",
    lambda form, as_json: as_json or form == "json",
    ("form", "as_json"),
    click.option("--messages", is_flag=True, help="Show whole messages: their text if it is printable, otherwise hex."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Lines for people or for programs.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
)
"""The options of a command that shows frames; it gets `messages` and `as_json`."""


admin_option = click.option(
    "--admin",
    cls=AdminOption,
    type=ADMIN_ADDRESS,
    default=ADMIN_DEFAULT,
    show_default=True,
    envvar="TRIORELAY_ADMIN",
    help="The relay's admin endpoint: unix:PATH, HOST:PORT, or a port of this host.",
)
"""The option that says where the endpoint is; the command gets `admin`."""
