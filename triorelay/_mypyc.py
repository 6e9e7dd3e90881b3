"""Hints for mypyc in the source, for modules that also run without the package mypy_extensions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_: bool):
        """Return a decorator that does nothing: only the compiler reads it."""
        return lambda decorated: decorated
