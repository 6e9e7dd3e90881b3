"""Which tests of the relay are for the interpreted one alone."""

from __future__ import annotations

from triorelay._build import COMPILED

# Without memory for a number what mypyc makes ends the process, and the tests with it.
collect_ignore = ["test_no_memory.py"] if COMPILED else []
