"""The images that these tests run, and a site for each test. Collected only with TRIORELAY_DOCKER=1."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.components import require
from tests.docker.engine import Site, docker_now

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
C_CLIENTS = ("article_client", "tcp_client")

# They build images and take minutes: a run of all other tests does without.
collect_ignore_glob = [] if os.environ.get("TRIORELAY_DOCKER") == "1" else ["test_*.py"]


@pytest.fixture(scope="session")
def base() -> str:
    """The image to build upon: what BASE names, or else one made of Debian's packages."""
    require("docker")
    if named := os.environ.get("BASE"):
        return named
    require("debootstrap")
    subprocess.run([ROOT / "docker" / "base-image"], check=True)
    return "triorelay-base:trixie"


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """The relay's image, built from this source tree."""
    name = "triorelay:under-test"
    dockerfile = str(ROOT / "docker" / "Dockerfile")
    docker_now("build", "--tag", name, "--build-arg", f"BASE={base}", "--file", dockerfile, str(ROOT))
    return name


@pytest.fixture(scope="session")
def c_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image that holds the C clients, static, and nothing else."""
    require("docker")
    name = "triorelay-c-clients:under-test"
    directory = tmp_path_factory.mktemp("static")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for client in C_CLIENTS:
            source = HERE.parent / "c" / f"{client}.c"
            flags = ["-std=gnu11", "-O2", "-static"]
            subprocess.run([require("gcc"), *flags, "-o", directory / client, source], check=True)
            tar.add(directory / client, client)
    docker_now("import", "-", name, stdin=archive.getvalue())
    return name


@pytest.fixture
def site(image: str, c_image: str) -> Iterator[Site]:
    """A site of this test's own, removed when it ends."""
    site = Site(f"triorelay-{uuid.uuid4().hex[:8]}", image, c_image, HERE / "peer.py")
    yield site
    site.remove()
