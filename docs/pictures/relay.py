"""A relay for as long as a picture takes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_relay(*arguments: str, cwd: Path) -> Iterator[None]:
    """Run `triorelay serve` in a directory for the length of the block, from when it is ready."""
    command = [sys.executable, "-m", "triorelay", "serve", *arguments]
    with subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "ready" not in (line := process.stderr.readline()):
                assert line, "the relay did not start"
            yield
        finally:
            process.terminate()
