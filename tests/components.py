"""The real components that some tests need: compilers, daemons, browsers, network tools.

A test says so by ``@pytest.mark.needs("gcc")``, or calls `require` where it finds out late. Where the component is
missing, the test is skipped and says what to install. With ``TRIORELAY_REQUIRE_ALL=1``, as in continuous integration,
it fails.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Component:
    """A program, the Debian package that has it, and a command that succeeds only where the program is of use."""

    program: str
    package: str
    probe: tuple[str, ...] = ()


# Programs that are not here are looked for by the component's name, in the package of that name.
COMPONENTS = {
    # A plugin of docker's in newer packages, a program of its own in older ones.
    "compose": Component("sh", "docker-compose", ("sh", "-c", "docker compose version || docker-compose version")),
    "docker": Component("docker", "docker.io", ("docker", "info")),
    "ip": Component("ip", "iproute2"),
    # Namespaces need a right that root inside a container may lack.
    "netns": Component("unshare", "util-linux", ("unshare", "--net", "true")),
    # A user who is not root gets one together with a namespace of users, where the system allows that.
    "pidns": Component(
        "unshare",
        "util-linux",
        ("sh", "-c", 'unshare --pid --fork $([ "$(id -u)" = 0 ] || echo --user --map-root-user) true'),
    ),
    "node": Component("node", "nodejs"),
    "capinfos": Component("capinfos", "wireshark-common"),
    "text2pcap": Component("text2pcap", "wireshark-common"),
    # Other programs of this name know no Unix sockets.
    "nc": Component("nc", "netcat-openbsd", ("sh", "-c", "nc -h 2>&1 | grep -qi unix")),
    "promtool": Component("promtool", "prometheus"),
    # A container may forbid tracing.
    "strace": Component("strace", "strace", ("strace", "-D", "-qq", "-o", "/dev/null", "true")),
    "systemd-analyze": Component("systemd-analyze", "systemd"),
    # It gives directories away, which takes root.
    "systemd-tmpfiles": Component("systemd-tmpfiles", "systemd", ("sh", "-c", '[ "$(id -u)" = 0 ]')),
}

# A daemon that hangs counts as missing. No probe of a working one takes longer than a second or two.
PROBE_TIMEOUT = 20


def require(name: str) -> str:
    """Return the path of a component's program; without the component, skip the running test or fail it."""
    component = COMPONENTS.get(name) or Component(name, name)
    path, reason = _find(component)
    if path is not None:
        return path
    reason = f"{name} is needed: {reason} (Debian: apt install {component.package})"
    if os.environ.get("TRIORELAY_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@functools.cache
def _find(component: Component) -> tuple[str | None, str]:
    # Programs that came with a Python package are beside the interpreter.
    path = shutil.which(component.program, path=f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}")
    if path is None:
        return None, f"no program {component.program}"
    if component.probe:
        try:
            subprocess.run(component.probe, check=True, capture_output=True, timeout=PROBE_TIMEOUT)
        except (OSError, subprocess.SubprocessError):
            return None, f"{component.program} is there, but fails: {' '.join(component.probe)}"
    return path, ""
