"""The image: small, confined, with metadata that says how to run it."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tests.docker.engine import SERVER_SOCKET, docker
from triorelay import __version__

if TYPE_CHECKING:
    from tests.docker.engine import Site

ROOT = Path(__file__).parents[2]
MOST_BYTES_ADDED = 60_000_000


async def inspect_image(name: str) -> dict[str, Any]:
    (found,) = json.loads(await docker("image", "inspect", name))
    assert isinstance(found, dict)
    return found


async def test_it_adds_at_most_60_mb_to_its_base(base: str, image: str) -> None:
    sizes = [(await inspect_image(name))["Size"] for name in (base, image)]
    assert sizes[1] - sizes[0] <= MOST_BYTES_ADDED


async def test_what_it_adds_holds_no_installer_and_no_compiler(image: str) -> None:
    listed = await docker("run", "--rm", "--network=none", "--entrypoint=find", image, "/opt/triorelay")
    names = {path.rpartition("/")[2] for path in listed.splitlines()}
    assert "triorelay" in names
    assert not names & {"pip", "setuptools", "hatchling", "gcc", "cc", "as", "ld"}


async def test_it_says_how_it_wants_to_run(image: str) -> None:
    config = (await inspect_image(image))["Config"]
    assert config["User"] == "9734:9734"
    assert config["Entrypoint"] == ["env", "--block-signal=TERM,INT,HUP,USR1,USR2", "triorelay"]
    assert config["Cmd"] == ["serve", "--unix", SERVER_SOCKET, "--tcp", "9734"]
    assert config["Healthcheck"]["Test"] == ["CMD", "triorelay", "health"]
    assert config["StopSignal"] == "SIGTERM"


async def test_its_labels_say_what_it_is(image: str) -> None:
    labels = (await inspect_image(image))["Config"]["Labels"]
    described = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert described["title"] == "triorelay"
    assert described["version"] == __version__
    assert described["licenses"] == "MIT"
    assert described["base.name"]


async def test_make_image_adds_the_revision_and_the_time(base: str, image: str) -> None:
    name = f"{image}-by-make"
    made = await trio.run_process(
        ["make", "--directory", ROOT, "image", f"IMAGE={name}", f"ARGS=--build-arg BASE={base}"],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    try:
        assert made.returncode == 0, made.stdout.decode()
        labels = (await inspect_image(name))["Config"]["Labels"]
        created = datetime.fromisoformat(labels["org.opencontainers.image.created"])
        head = await trio.run_process(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_stdout=True)
        assert labels["org.opencontainers.image.revision"] == head.stdout.decode().strip()
        assert timedelta() <= datetime.now(UTC) - created < timedelta(days=1)
        assert labels["org.opencontainers.image.version"] == __version__
    finally:
        await docker("image", "rm", name, check=False)


async def test_the_health_check_turns_healthy(site: Site) -> None:
    relay = await site.relay(await site.volume(), await site.network())
    await relay.healthy()
