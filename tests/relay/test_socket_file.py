"""A Unix listener's path: never stolen from a live server, taken over from a dead one, never open too early."""

import errno
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from triorelay.protocol import ConfigError
from triorelay.relay import _socket_file
from triorelay.relay._socket_file import SocketFile

Process = subprocess.Popen[str]


@contextmanager
def listen(path: Path | str, *, mode: int = 0o600, group: int | None = None) -> Iterator[socket.socket]:
    with closing(SocketFile(str(path), mode=mode, group=group, backlog=5)) as file, file.listen() as listener:
        yield listener


def make_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@contextmanager
def other_server(path: Path, *, backlog: int = 5) -> Iterator[socket.socket]:
    """A server that knows nothing of our lock, like the article's."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(backlog)
        server.setblocking(False)
        yield server


@contextmanager
def listening_process() -> Iterator[Process]:
    program = Path(__file__).with_name("listening_process.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert answer(process) == "ready"
            yield process
        finally:
            process.kill()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def order(process: Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def answer(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def assert_reachable(path: Path | str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_the_path_is_there_while_listening_and_gone_afterwards_and_the_lock_stays(tmp_path: Path) -> None:
    path = tmp_path / "server_socket"
    with listen(path) as listener:
        assert listener.getblocking() is False
        assert_reachable(path)
    assert listener.fileno() == -1
    assert [entry.name for entry in tmp_path.iterdir()] == ["server_socket.lock"]
    assert stat.S_IMODE((tmp_path / "server_socket.lock").stat().st_mode) == 0o600


def test_the_same_path_serves_start_after_start(tmp_path: Path) -> None:
    for _ in range(3):
        with listen(tmp_path / "s"):
            assert_reachable(tmp_path / "s")


def test_a_relative_path_is_removed_although_the_working_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with listen("s"):
        monkeypatch.chdir("/")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("stale", [False, True], ids=["nothing there", "a dead socket there"])
def test_exactly_one_of_two_processes_that_start_at_once_wins(tmp_path: Path, stale: bool) -> None:
    with listening_process() as one, listening_process() as two:
        for round_ in range(50):
            path = tmp_path / f"s{round_}"
            if stale:
                make_stale(path)
            instant = time.monotonic() + 0.002
            for process in (one, two):
                order(process, f"{path} {instant}")
            answers = {process: answer(process) for process in (one, two)}
            winners = [process for process, text in answers.items() if text == "listening"]
            assert len(winners) == 1, answers.values()
            assert any("is in use by another relay" in text for text in answers.values())
            assert_reachable(path)
            order(winners[0], "leave")
            assert answer(winners[0]) == "left"


def test_a_second_listener_of_one_process_is_refused(tmp_path: Path) -> None:
    with listen(tmp_path / "s"):
        with pytest.raises(ConfigError, match="in use by another relay"), listen(tmp_path / "s"):
            pass
        assert_reachable(tmp_path / "s")


def test_a_live_server_without_our_lock_keeps_its_path_and_meets_no_phantom_client(tmp_path: Path) -> None:
    path = tmp_path / "server_socket"
    with other_server(path) as server:
        with pytest.raises(ConfigError, match="in use by another server"), listen(path):
            pass
        with pytest.raises(BlockingIOError):
            server.accept()
        assert_reachable(path)


def test_a_live_server_with_a_full_backlog_keeps_its_path(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with other_server(path, backlog=0), ExitStack() as clients:
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        with pytest.raises(ConfigError, match="in use by another server"), listen(path):
            pass


def test_a_live_datagram_server_keeps_its_path_and_gets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.setblocking(False)
        with pytest.raises(ConfigError, match="in use by another server"), listen(path):
            pass
        with pytest.raises(BlockingIOError):
            server.recv(1)


def test_the_path_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "server_socket"
    with listening_process() as process:
        order(process, f"{path} 0")
        assert answer(process) == "listening"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.is_socket()
    with listen(path):
        assert_reachable(path)


def test_what_is_not_a_socket_is_refused_and_left_alone(tmp_path: Path) -> None:
    file, directory, pipe = tmp_path / "file", tmp_path / "directory", tmp_path / "pipe"
    file.write_text("precious")
    directory.mkdir()
    os.mkfifo(pipe)
    for path, kind in ((file, "a file"), (directory, "a directory"), (pipe, "a device or pipe")):
        with pytest.raises(ConfigError, match=f"is {kind}, not a socket, and is left alone"), listen(path):
            pass
    assert file.read_text() == "precious"
    assert directory.is_dir()
    assert pipe.is_fifo()


@pytest.mark.parametrize("target", ["nothing", "dead", "file"])
def test_a_symbolic_link_is_refused_and_left_alone_whatever_it_leads_to(tmp_path: Path, target: str) -> None:
    make_stale(tmp_path / "dead")
    (tmp_path / "file").write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match="is a symbolic link, not a socket"), listen(link):
        pass
    assert link.is_symlink()
    assert (tmp_path / "dead").is_socket()
    assert (tmp_path / "file").read_text() == "precious"


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "s.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"s\.lock is a symbolic link"), listen(tmp_path / "s"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.lock")
    (tmp_path / "t.lock").mkdir()
    with pytest.raises(ConfigError, match=r"s\.lock is not a regular file"), listen(tmp_path / "s"):
        pass
    with pytest.raises(ConfigError, match=r"t\.lock: Is a directory"), listen(tmp_path / "t"):
        pass


def test_another_file_that_took_the_place_of_ours_is_not_unlinked(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with other_server(tmp_path / "theirs"):
        with listen(path):
            (tmp_path / "theirs").replace(path)
        assert_reachable(path)


def test_a_server_that_came_after_the_listener_was_closed_is_not_unlinked_whatever_its_inode_number(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    with ExitStack() as servers:
        with listen(path) as listener:
            listener.close()
            path.unlink()
            servers.enter_context(other_server(path))
        assert_reachable(path)


def test_a_path_that_was_removed_meanwhile_is_no_error(tmp_path: Path) -> None:
    with listen(tmp_path / "s"):
        (tmp_path / "s").unlink()


@pytest.mark.parametrize(("umask", "bound"), [(0, "0620"), (0o077, "0600")])
def test_no_client_can_connect_before_group_and_mode_are_right(tmp_path: Path, umask: int, bound: str) -> None:
    path, group = tmp_path / "s", some_group()
    seen = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("path_watching_process.py")), str(path), "0620", str(group)],
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=True,
        umask=umask,
    ).stdout.splitlines()
    refused, connected = os.strerror(errno.ECONNREFUSED), os.strerror(0)
    fresh = group == os.getegid()
    assert seen == [
        f"os.chown|{bound}|{fresh}|{refused}",
        *([f"os.chmod|{bound}|True|{refused}"] if bound != "0620" else []),
        f"listening|0620|True|{connected}",
    ]


def some_group() -> int:
    """Return a group that we may give files to, another than their first one where possible."""
    return 4242 if os.geteuid() == 0 else max({os.getegid(), *os.getgroups()})


def test_the_umask_of_the_process_is_as_before_even_when_threads_start_relays_at_once(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        barrier = threading.Barrier(4)

        def start(number: int) -> None:
            barrier.wait()
            for _ in range(50):
                with listen(tmp_path / f"s{number}"):
                    pass

        threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        assert os.umask(before) == 0o027


def test_an_error_while_listening_leaves_neither_path_nor_lock_held(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(ZeroDivisionError), listen(path):
        raise ZeroDivisionError
    with listen(path):
        assert_reachable(path)


def test_a_server_that_takes_the_path_after_the_stale_one_was_removed_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    make_stale(path)
    with ExitStack() as servers:
        unlink = os.unlink

        def start_another_server(place: bytes) -> None:
            unlink(place)
            servers.enter_context(other_server(path))

        monkeypatch.setattr(os, "unlink", start_another_server)
        with pytest.raises(ConfigError, match="was taken by another server just now"), listen(path):
            pass
        assert_reachable(path)


def test_a_socket_that_vanishes_while_it_is_asked_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    make_stale(path)
    probe = _socket_file._probe

    def vanish(place: str) -> int:
        path.unlink()
        return probe(place)

    monkeypatch.setattr(_socket_file, "_probe", vanish)
    with listen(path):
        assert_reachable(path)


def test_107_bytes_are_a_path_and_108_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with listen("é" * 53 + "a") as listener:
        assert len(os.fsencode(listener.getsockname())) == 107
    with (
        pytest.raises(ConfigError, match=r"path of 108 bytes .* too long: at most 107 bytes") as caught,
        listen("a" * 108),
    ):
        pass
    assert len(str(caught.value)) < 256
    assert list(tmp_path.glob("a*.lock")) == []


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("", "needs a path that is not empty"),
        ("a\0b", "holds no zero byte"),
        ("missing/s", "there is no directory missing for the socket missing/s: create it"),
        ("file/s", "file is not a directory"),
        ("loop/s", "cannot open loop/s.lock"),
        ("file/", "names a directory"),
    ],
)
def test_a_path_that_cannot_be_is_named_with_what_to_do(
    path: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=complaint) as caught, listen(path):
        pass
    assert "\n" not in str(caught.value)


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Run the block as a user without root's rights."""
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)


@contextmanager
def directory_of_mode(mode: int) -> Iterator[Path]:
    """A directory that an ordinary user reaches, which those of `tmp_path` are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, mode)
        yield Path(name)
        os.chmod(name, 0o700)


def test_a_directory_that_one_may_not_write_to_is_named() -> None:
    with (
        directory_of_mode(0o555) as directory,
        as_ordinary_user(),
        pytest.raises(ConfigError, match=r"s\.lock: Permission denied; run as a user who may write"),
        listen(directory / "s"),
    ):
        pass


def test_a_stale_socket_that_one_may_not_remove_is_named() -> None:
    with directory_of_mode(0o755) as directory:
        path = directory / "s"
        make_stale(path)
        (directory / "s.lock").touch()
        for entry in directory.iterdir():
            entry.chmod(0o666)
        directory.chmod(0o555)
        with (
            as_ordinary_user(),
            pytest.raises(ConfigError, match=r"cannot remove the stale socket .*: Permission denied"),
            listen(path),
        ):
            pass
        assert path.is_socket()


def test_a_directory_that_takes_no_socket_is_named() -> None:
    with directory_of_mode(0o755) as directory:
        (directory / "s.lock").touch()
        (directory / "s.lock").chmod(0o666)
        directory.chmod(0o555)
        with (
            as_ordinary_user(),
            pytest.raises(ConfigError, match=r"cannot create .*: Permission denied; fix the permissions"),
            listen(directory / "s"),
        ):
            pass


def test_a_group_that_one_may_not_give_is_named_and_the_path_is_free_again() -> None:
    with directory_of_mode(0o777) as directory, as_ordinary_user():
        path = directory / "s"
        with (
            pytest.raises(ConfigError, match=r"to group \d+: .*not permitted; name a group"),
            listen(path, mode=0o660, group=max({os.getegid(), *os.getgroups()}) + 1),
        ):
            pass
        assert not path.exists()
        with listen(path):
            assert_reachable(path)


def test_a_socket_of_another_user_that_may_not_be_asked_is_left_alone() -> None:
    with directory_of_mode(0o777) as directory:
        path = directory / "s"
        make_stale(path)
        path.chmod(0)
        with (
            as_ordinary_user(),
            pytest.raises(ConfigError, match="a socket of another user"),
            listen(path),
        ):
            pass
        assert path.is_socket()


def test_a_link_that_takes_the_place_of_the_socket_while_it_is_made_lends_its_target_no_mode_and_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, precious = tmp_path / "s", tmp_path / "precious"
    precious.touch(mode=0o600)
    before = precious.stat()
    bind = _socket_file._bind

    def bind_and_be_robbed(*arguments: Any) -> None:
        bind(*arguments)
        path.unlink()
        path.symlink_to(precious)

    monkeypatch.setattr(_socket_file, "_bind", bind_and_be_robbed)
    with (
        pytest.raises(ConfigError, match="another file took the place of"),
        listen(path, mode=0o666, group=some_group()),
    ):
        pass
    after = precious.stat()
    assert (after.st_mode, after.st_gid) == (before.st_mode, before.st_gid)
    assert path.is_symlink()


def test_a_default_acl_of_the_directory_gives_the_socket_no_other_mode(tmp_path: Path) -> None:
    version, user, group, other, no_id = 2, 1, 4, 32, 0xFFFFFFFF
    everything = b"".join(struct.pack("<HHI", tag, 7, no_id) for tag in (user, group, other))
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", struct.pack("<I", version) + everything)
    except OSError as error:
        pytest.skip(f"no ACL here: {error}")
    with listen(tmp_path / "s"):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_lock_that_is_there_is_opened_without_creating_it_as_the_kernel_wants_it_in_a_shared_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.lock").touch()
    open_as_usual = os.open

    def protect_regular(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and os.path.exists(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return open_as_usual(path, flags, mode)

    monkeypatch.setattr(os, "open", protect_regular)
    with listen(tmp_path / "s"):
        assert_reachable(tmp_path / "s")


def test_a_path_that_cannot_be_kept_open_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_as_usual = os.open

    def run_out(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_PATH:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_as_usual(path, flags, mode)

    monkeypatch.setattr(os, "open", run_out)
    with pytest.raises(ConfigError, match=r"cannot keep .*/s open: Too many open files"), listen(tmp_path / "s"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.lock"]


def test_a_working_directory_that_was_removed_is_named_and_is_no_obstacle_to_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with listen(tmp_path / "s"):
        assert_reachable(tmp_path / "s")
    with (
        pytest.raises(ConfigError, match=rf"the working directory {gone} was removed, so s leads nowhere"),
        listen("s"),
    ):
        pass


def test_a_name_that_begins_with_an_at_sign_is_abstract_and_is_held_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"@triorelay-{os.getpid()}"
    with listen(name) as listener:
        assert listener.getsockname() == b"\0" + name[1:].encode()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(b"\0" + name[1:].encode())
        with pytest.raises(ConfigError, match="in use by another server"), listen(name):
            pass
    with listen(name):
        pass
    with pytest.raises(ConfigError, match="not empty"), listen("@"):
        pass
    assert list(tmp_path.iterdir()) == []
    with listen(f"./{name}"):
        assert (tmp_path / name).is_socket()


class TestListeningAnew:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[SocketFile]:
        file = SocketFile(str(tmp_path / "s"), mode=0o640, group=None, backlog=5)
        with file.listen():
            assert file.leads_here()
            yield file
        file.close()

    def test_a_path_that_was_removed_is_made_again(self, file: SocketFile) -> None:
        path = Path(file.path)
        path.unlink()
        assert not file.leads_here()
        with file.listen():
            assert file.leads_here()
            assert_reachable(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            file.close()
            assert not path.exists()

    def test_a_dead_socket_in_its_place_is_replaced(self, file: SocketFile) -> None:
        path = Path(file.path)
        path.unlink()
        make_stale(path)
        assert not file.leads_here()
        with file.listen():
            assert_reachable(path)

    def test_another_server_in_its_place_is_left_alone(self, file: SocketFile) -> None:
        path = Path(file.path)
        path.unlink()
        with other_server(path):
            assert not file.leads_here()
            with pytest.raises(ConfigError, match="in use by another server"):
                file.listen()
            file.close()
            assert_reachable(path)

    def test_without_its_lock_the_path_may_be_another_relay_s(self, file: SocketFile) -> None:
        path = Path(file.path)
        path.unlink()
        (path.parent / "s.lock").unlink()
        with listen(path):
            with pytest.raises(ConfigError, match="in use by another relay"):
                file.listen()
            assert_reachable(path)
        with file.listen():
            assert_reachable(path)
            with pytest.raises(ConfigError, match="in use by another relay"), listen(path):
                pass

    def test_a_directory_that_was_removed_is_named(self, file: SocketFile) -> None:
        path = Path(file.path)
        path.unlink()
        (path.parent / "s.lock").unlink()
        path.parent.rmdir()
        with pytest.raises(ConfigError, match="there is no directory"):
            file.listen()
        path.parent.mkdir()
        with file.listen():
            assert_reachable(path)
