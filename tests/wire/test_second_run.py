"""The article's client leaves its socket file behind, so its second run cannot bind, and does not notice."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import PATIENCE
from tests.wire.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.needs("gcc")
def test_it_gets_no_id_and_the_log_says_who_it_is_and_what_is_in_its_way(
    compile_c: Callable[[str], Path], tmp_path: Path
) -> None:
    program = compile_c("article_client")
    with RelayProcess(tmp_path) as relay:
        for expected in ((0, "A1\n"), (1, "")):
            run = subprocess.run(
                [program, "A", "A", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
            )
            assert (run.returncode, run.stdout) == expected
        line = relay.wait_for_line("client refused")
    assert "process=article_client" in line
    assert "the socket file of an earlier run may be in its way" in line
