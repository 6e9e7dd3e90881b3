"""What the shell offers for an id: who is there now."""

import os
import shlex

import click
from click.shell_completion import CompletionItem

from ..protocol import Address, RelayError, id_byte, id_name, parse_address
from ._client_options import DEFAULT
from ._run import run

PATIENCE = 0.5
"""Seconds after which a relay that does not answer is not asked: somebody has pressed a key and waits."""


def complete_peer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids that are there and begin with what was typed; none where the relay cannot be asked.

    What a shell would take for something else (`*`, `$`) is left out.
    """
    del param
    try:
        address: Address = ctx.params.get("relay") or parse_address(os.environ.get("TRIORELAY_RELAY") or DEFAULT)
        names = _who_is_there(address)
    except (ValueError, OSError, RelayError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and shlex.quote(name) == name]


def _who_is_there(address: Address) -> list[str]:
    import trio

    from ..client import open_client

    async def ask() -> list[str]:
        with trio.move_on_after(PATIENCE):
            async with open_client(address, observer=True) as client:
                return [id_name(id_byte(name)) for name in sorted(client.peers)]
        return []

    return run(ask)
