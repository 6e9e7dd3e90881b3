"""docker/compose.yaml, brought up as its first lines say: two hosts talk, and the dashboard knows them all."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.docker.project import Project, project_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def project(base: str) -> Iterator[Project]:
    with project_of("compose.yaml", base) as project:
        yield project


def fetch(address: str, token: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.needs("compose")
async def test_four_clients_of_two_hosts_talk_and_the_dashboard_knows_them(project: Project) -> None:
    lines = {"a": "^[0-9] from P", "p": " from A", "b": "says Q", "q": "says B"}
    async with trio.open_nursery() as nursery:
        for service, line in lines.items():
            nursery.start_soon(partial(project.container(service).line, line))

    hosts, numbers = zip(*(project.published(port) for port in (9734, 9735, 9736)), strict=True)
    assert set(hosts) == {"127.0.0.1"}
    address = f"http://127.0.0.1:{numbers[2]}"
    (token,) = re.findall("#token=(.*)", "\n".join(await project.container("prepare").logs()))
    page, denied, status = [
        await trio.to_thread.run_sync(fetch, *arguments)
        for arguments in ((f"{address}/",), (f"{address}/status",), (f"{address}/status", token))
    ]
    assert (page[0], denied[0], status[0]) == (200, 401, 200)
    clients = {client["name"]: client["transport"] for client in json.loads(status[1])["clients"]}
    assert clients == {"A": "unix", "B": "unix", "P": "tcp", "Q": "tls"}
