"""What mypyc has to be told in the source, for modules that also run where mypy_extensions is not installed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_: bool):
        """Return a decorator that does nothing: only the compiler reads it."""
        return lambda decorated: decorated
