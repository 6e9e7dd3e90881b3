"""``python profiled_relay.py FILE PROGRAM ARGUMENTS…``: a program with its Python calls counted.

PROGRAM is `-m triorelay`, or the file `pure_relay.py`. At its end the number of calls goes to FILE: functions entered
and coroutines resumed, those that are compiled or written in C not counted.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    count = 0

    def on_event(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if event == "call":
            count += 1

    path = Path(sys.argv.pop(1))
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.setprofile(on_event)
    try:
        if sys.argv[1] == "-m":
            del sys.argv[1]
            runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
        else:
            del sys.argv[0]
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.setprofile(None)
        path.write_text(f"{count}\n")


if __name__ == "__main__":
    main()
