"""A module of the package as its source says, whatever of the package is compiled: to compare the two."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import triorelay
from triorelay import _build

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(triorelay.__file__).parent.parent


def interpreted(name: str) -> ModuleType:
    """Return a copy of the module `name` that runs as Python, beside the one that the package uses."""
    spec = spec_from_file_location(name, ROOT / f"{name.replace('.', '/')}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_build, "COMPILED", False)
        spec.loader.exec_module(module)
    return module
