"""Compiles the relay's hot modules with mypyc: by the build of a wheel, where it is asked for, and in the checkout.

1. One source: the modules that pyproject.toml lists are Python, and run as they are where nothing was compiled. What is
   compiled stands beside them as extension modules, which Python prefers.
2. A build compiles only with HATCH_BUILD_HOOKS_ENABLE=1 in the environment, and fails where it cannot: there is no
   wheel that is compiled on one machine and not on the next. Such a wheel is for one Python and one platform, and needs
   librt at run time, as the pure one does not.
3. `python hatch_build.py` compiles in the checkout, for an editable installation; with `--remove` it takes that back,
   with `--remove-outdated` only where a source has changed since, which what is compiled would hide.
4. mypyc believes the types, so it has to see the same ones as `make check`: trio-typing, whose stubs shadow Trio's own,
   must not be installed beside it.
"""

import os
import shutil
import sys
import tempfile
import tomllib
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "triorelay"
"""mypyc puts the code of all modules into one library, `triorelay__mypyc`, and a small module for each beside it."""

FLAGS = ["-fno-semantic-interposition", "-fno-plt"]
"""No other library replaces functions of this one, so they may call each other directly: 3 % fewer instructions a
message in the loop of 64 clients in pairs (callgrind)."""


class CompileHook(BuildHookInterface[Any]):
    """Puts what is compiled into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._work = tempfile.TemporaryDirectory(prefix="triorelay-build-")
        for path in compile_modules(Path(self.root), self.config["modules"], Path(self._work.name)):
            build_data["force_include"][str(path)] = str(path.relative_to(Path(self._work.name, "lib")))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["dependencies"].append(f"librt>={version_of('librt')}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._work.cleanup()


def compile_modules(root: Path, modules: list[str], work: Path) -> list[Path]:
    """Compile `modules`, paths below `root`, and return the extension modules, each at its place below `work`/lib."""
    # mypyc asks for setuptools before itself. Both are installed only where something is compiled.
    from setuptools import Distribution  # isort: skip
    from mypyc.build import mypycify

    if find_spec("trio_typing"):
        raise SystemExit("compiling: trio-typing is installed here, and its stubs shadow Trio's own: remove it")
    os.chdir(root)  # where mypy finds its settings, and the names of modules begin
    extensions = mypycify([*modules], group_name=LIBRARY, target_dir=str(work / "c"), debug_level="0")
    for extension in extensions:
        extension.extra_compile_args += FLAGS
    command = Distribution({"name": LIBRARY, "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(work / "lib"), str(work / "temp")
    command.ensure_finalized()
    command.run()
    return sorted((work / "lib").rglob("*.so"))


def compiled_here(root: Path) -> list[Path]:
    """Return what `main` has put into the checkout."""
    return sorted([*root.glob(f"{LIBRARY}__mypyc.*.so"), *(root / "triorelay").rglob("*.so")])


def outdated(root: Path) -> bool:
    """Return whether a source is newer than what was compiled from it in the checkout."""
    sources = {path: path.with_name(f"{path.name.partition('.')[0]}.py") for path in compiled_here(root)}
    return any(
        not source.exists() or source.stat().st_mtime > path.stat().st_mtime
        for path, source in sources.items()
        if path.parent != root
    )


def main() -> None:
    root = Path(__file__).resolve().parent
    if sys.argv[1:] == ["--remove-outdated"]:
        if not outdated(root):
            return
        print("a source is newer than what was compiled from it, so that is removed: 'make compiled' compiles again")
    with open(root / "pyproject.toml", "rb") as file:
        hooks = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    for path in compiled_here(root):
        path.unlink()
    if sys.argv[1:]:
        return
    with tempfile.TemporaryDirectory(prefix="triorelay-build-") as work:
        for path in compile_modules(root, hooks["custom"]["modules"], Path(work)):
            place = root / path.relative_to(Path(work, "lib"))
            place.unlink(missing_ok=True)  # to write over a file that a process has mapped would crash that process
            shutil.copy2(path, place)


if __name__ == "__main__":
    main()
