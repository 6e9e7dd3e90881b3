"""The unit files that the docs give away: systemd itself reads them, and weighs how confined the relay would be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent / "docs" / "how-to" / "systemd"
SERVICE, SOCKET = UNITS / "triorelay.service", UNITS / "triorelay.socket"
USERS, DIRECTORIES = UNITS / "triorelay.sysusers", UNITS / "triorelay.tmpfiles"

# In tenths of systemd's scale from 0 to 10. What is left of it are things that the relay needs: its sockets, the uids
# of its clients, and the names of their processes.
EXPOSURE = 20


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def setting(unit: Path, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)
    assert found, f"{unit.name} has no {name}="
    return found[1]


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    command = setting(SERVICE, "ExecStart").split()[0]
    program = tmp_path / "triorelay"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # The command is where pip installs it for all users, which need not be where these tests run.
    (tmp_path / SERVICE.name).write_text(SERVICE.read_text().replace(command, str(program)))
    shutil.copy(SOCKET, tmp_path)
    found = analyze("verify", "--man=no", tmp_path / SERVICE.name, tmp_path / SOCKET.name)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.needs("systemd-analyze")
def test_the_service_is_confined() -> None:
    found = analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", SERVICE)
    assert found.returncode == 0, found.stdout


@pytest.mark.needs("systemd-tmpfiles")
def test_from_boot_on_clients_may_bind_their_names_beside_the_socket(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", USERS], check=True, capture_output=True)
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={tmp_path}", DIRECTORIES], check=True)
    socket = Path(setting(SOCKET, "ListenStream"))
    directory = (tmp_path / socket.relative_to("/")).parent.stat()
    assert oct(directory.st_mode & 0o7777) == f"0o{setting(SERVICE, 'RuntimeDirectoryMode')}"
    user, group = (
        int((tmp_path / "etc" / file).read_text().split(f"{setting(SOCKET, name)}:x:")[1].split(":")[0])
        for file, name in (("passwd", "SocketUser"), ("group", "SocketGroup"))
    )
    assert (directory.st_uid, directory.st_gid) == (user, group)


def test_a_drain_fits_into_the_time_that_systemd_gives() -> None:
    assert int(setting(SERVICE, "TimeoutStopSec")) > 8


def test_the_uids_of_clients_stay_visible_to_a_policy() -> None:
    assert "PrivateUsers=" not in SERVICE.read_text()
