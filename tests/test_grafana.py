"""The Grafana dashboard: its queries, asked of a real Prometheus that scrapes a relay under load."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.processes import relay
from tests.prometheus import DASHBOARD, PATIENCE, free_port, load, panels, scraping
from triorelay.admin._metrics import Metrics
from triorelay.testing import open_relay

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.needs("prometheus")
async def test_every_panel_has_data_while_a_relay_is_under_load(tmp_path: Path) -> None:
    target = f"127.0.0.1:{free_port()}"
    (tmp_path / "prometheus").mkdir()
    missing = {(panel.title, query) for panel in panels() for query, _ in panel.queries}
    assert len(missing) > 15
    with relay("--admin", target, cwd=tmp_path), scraping(target, tmp_path / "prometheus") as prometheus:
        async with load(f"unix:{tmp_path}/server_socket"):
            with trio.move_on_after(PATIENCE):
                while missing:
                    for panel in sorted(missing):
                        # A query that is wrong fails; one that finds nothing is asked again.
                        if await trio.to_thread.run_sync(prometheus.query, panel[1]):
                            missing.discard(panel)
                    await trio.sleep(0.5)
    assert missing == set()


async def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    async with open_relay() as running:
        text = Metrics(running.relay).reply().body.decode()
    ours = set(re.findall(r"^# TYPE (triorelay_\w+)", text, re.MULTILINE))
    named = {
        name for panel in panels() for query, _ in panel.queries for name in re.findall(r"\b(triorelay_[a-z_]+)", query)
    }
    assert named <= ours
    # Versions, and metrics of other relays of a realm, are not for a graph of every relay.
    assert ours - named <= {"triorelay_build_info"} | {name for name in ours if "cluster" in name}


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "job", "instance"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken, panel["title"]
        assert grid["x"] + grid["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
