"""Which tests of the protocol are for the compiled one alone."""

from __future__ import annotations

from triorelay._build import COMPILED

# Interpreted, nothing calls the module, and the package that it needs may be absent.
collect_ignore = [] if COMPILED else ["test_grouping.py"]
