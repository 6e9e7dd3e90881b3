"""`triorelay` as its source says, where the package beside it is compiled: to compare the two builds in one run."""

from __future__ import annotations

import runpy
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parent.parent / "triorelay")


def _find_source(path: str) -> FileFinder:
    if path != PACKAGE and not path.startswith(f"{PACKAGE}/"):
        raise ImportError
    return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(PACKAGE).parent))
    sys.path_hooks.insert(0, _find_source)
    runpy.run_module("triorelay", run_name="__main__", alter_sys=True)
