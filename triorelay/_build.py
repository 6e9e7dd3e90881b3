"""Which build of the package runs: the same Python, compiled by mypyc or interpreted."""

from typing import Final


def _probe() -> None:
    """Exist as a function: a compiled one has no bytecode."""


COMPILED: Final = not hasattr(_probe, "__code__")
"""Whether this module, and with it all that pyproject.toml lists, runs compiled."""

BUILD: Final = "compiled" if COMPILED else "pure Python"
"""The same for people."""
