"""What the figures were measured on: the machine, and the versions of all that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from benchmarks.servers import SEARCH
from triorelay import __version__
from triorelay._build import BUILD

# Each peer says its version in words of its own; the number is all that is kept.
PEER_COMMANDS = {
    "NATS": ["nats-server", "--version"],
    "mosquitto": ["mosquitto", "-h"],
    "dbus-daemon": ["dbus-daemon", "--version"],
    "Redis": ["redis-server", "--version"],
    "C compiler": ["cc", "--version"],
}
PACKAGES = ("trio",)


def describe() -> dict[str, str]:
    """The machine and the versions, in the order to be shown."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    found = {
        "processor": f"{_processor()}, {cores}, {memory}",
        "kernel": f"{platform.system()} {platform.release()}",
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "triorelay": __version__,
        "build": BUILD,
        "Python": platform.python_version(),
    }
    found.update({name: version for name in PACKAGES if (version := package(name))})
    found.update({name: version for name, command in PEER_COMMANDS.items() if (version := _program(command))})
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _program(command: list[str]) -> str | None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, "PATH": SEARCH}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # "Debian 12.2.0-14" comes before the compiler's own number, and is the same but for the packaging.
    number = re.search(r"\d+\.\d+\.\d+", result.stdout + result.stderr)
    return number.group() if number else None
