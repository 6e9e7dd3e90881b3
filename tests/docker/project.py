"""A project of docker compose, as the files in docker/ describe it."""

from __future__ import annotations

import os
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docker.engine import Container

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).parent.parent.parent / "docker"

# The plugin of today's engines, or the program that older Debian packages have instead.
PLUGIN, PROGRAM = ["docker", "compose"], ["docker-compose"]

# Another relay on this machine keeps its ports, and so does another project that is up.
FREE_PORTS = dict.fromkeys(["TCP_PORT", "TLS_PORT", "ADMIN_PORT"], "")


@dataclass(frozen=True, slots=True)
class Project:
    """All services of a file, up and running."""

    command: list[str]
    environment: dict[str, str]

    def compose(self, *arguments: str) -> str:
        command = [*self.command, *arguments]
        environment = os.environ | self.environment
        result = subprocess.run(command, cwd=DIRECTORY, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command} failed:\n{result.stdout}{result.stderr}"
        return result.stdout.strip()

    def container(self, service: str) -> Container:
        return Container(self.compose("ps", "--all", "--quiet", service))

    def published(self, port: int) -> tuple[str, str]:
        host, _, number = self.compose("port", "relay", str(port)).rpartition(":")
        return host, number


@contextmanager
def project_of(file: str, base: str) -> Iterator[Project]:
    """Bring up a file of docker/ on the image `base`, under a name of its own, and take everything away at the end."""
    has_plugin = subprocess.run([*PLUGIN, "version"], capture_output=True).returncode == 0
    names = {"COMPOSE_PROJECT_NAME": f"triorelay-{uuid.uuid4().hex[:8]}", "COMPOSE_FILE": file, "BASE": base}
    project = Project(PLUGIN if has_plugin else PROGRAM, names | FREE_PORTS)
    try:
        project.compose("up", "--build", "--detach")
        yield project
    finally:
        project.compose("down", "--volumes")
