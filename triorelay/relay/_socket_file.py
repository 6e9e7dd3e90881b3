"""The life of a Unix listener's path: who may take it, when it may be connected to, who removes it.

Theory of operation:

1. `PATH.lock` is locked before PATH is looked at, and for as long as the listener lives; so of two relays that start
   at once only one ever touches PATH. The lock file is never unlinked: a relay that waits to open it and one that
   has just removed it would hold locks on two different files.
2. Other servers know nothing of that lock. Whether one still listens is asked by connecting a datagram socket: the
   kernel answers EPROTOTYPE for a path that a live stream socket holds and ECONNREFUSED for one that nobody holds, and
   in neither case does a server find a client to accept.
3. Only a socket that nobody holds is replaced. Anything else at PATH, a symbolic link too, is refused and left alone.
4. The file is created for its owner alone, gets its group, then its mode, and only then listens: until then the kernel
   refuses every connection, so nobody is admitted by a mode that was not meant.
5. At the end PATH is unlinked only if it is still the inode that was bound. That inode is kept open until then, because
   a file system gives the number of a removed one to the next file at once (ext4 does), and the listener may be closed
   long before the path is removed.
"""

import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..protocol import ConfigError

MAX_PATH_BYTES = 107
"""`sun_path` of unix(7) has 108 bytes, the last of them for the closing zero."""

CREATION_UMASK = 0o177
"""Leaves reading and writing for the owner and nothing for anybody else."""

_umask_turn = threading.Lock()
"""The umask belongs to the process: two threads that set and restore it in turn could leave the wrong one behind."""


@contextmanager
def listen_unix(path: str, *, mode: int, group: int | None, backlog: int) -> Iterator[socket.socket]:
    """Listen on a Unix socket file for the length of the block.

    The block may close the socket itself; leaving it closes the socket in any case, unlinks the path if it is still
    ours, and lets go of the lock.

    Args:
        path: at most 107 bytes; relative paths are relative to the working directory at this moment.
        mode: permission bits of the file.
        group: group id of the file, or None to leave what the directory gives.
        backlog: as for listen(2).

    Yields:
        A non-blocking stream socket that listens.

    Raises:
        ConfigError: the path cannot be had; one line says why and what to do.
    """
    _refuse_impossible(path)
    place = os.path.abspath(path)
    with _locked(path, place), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        _clear_stale(path, place)
        _bind(listener, path)
        with _removed_at_the_end(place):
            _set_access(path, place, mode, group)
            listener.setblocking(False)
            listener.listen(backlog)
            yield listener


def _refuse_impossible(path: str) -> None:
    raw = os.fsencode(path)
    if not raw or b"\0" in raw:
        raise ConfigError("a Unix socket needs a path that is not empty and holds no zero byte")
    if len(raw) > MAX_PATH_BYTES:
        raise ConfigError(
            f"the socket path of {len(raw)} bytes that begins with {path[:32]} is too long: "
            f"at most {MAX_PATH_BYTES} bytes; give a shorter one, or one relative to the working directory"
        )
    if raw.endswith(b"/"):
        raise ConfigError(f"{path} names a directory: give the path of a socket in it, as in {path}server_socket")


@contextmanager
def _locked(path: str, place: str) -> Iterator[None]:
    lock = f"{place}.lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _no_lock(path, place, error) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path}.lock is not a regular file: remove it, or give another path")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{path} is in use by another relay: stop that one, or give another path") from None
        yield
    finally:
        os.close(descriptor)


def _no_lock(path: str, place: str, error: OSError) -> ConfigError:
    directory = os.path.dirname(path) or "."
    match error.errno:
        case errno.ENOENT:
            return ConfigError(
                f"there is no directory {directory} for the socket {path}: create it, or give another path"
            )
        case errno.ENOTDIR:
            return ConfigError(f"{directory} is not a directory, so {path} cannot be: give another path")
        case errno.ELOOP if os.path.islink(f"{place}.lock"):
            return ConfigError(f"{path}.lock is a symbolic link and is not followed: remove it, or give another path")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return ConfigError(
                f"cannot open {path}.lock: {error.strerror}; "
                f"run as a user who may write to it and to {directory}, or give another path"
            )
    return ConfigError(f"cannot open {path}.lock: {error.strerror}; mend that, or give another path")


def _clear_stale(path: str, place: str) -> None:
    """Unlink a socket that nobody holds; leave an empty path as it is."""
    try:
        found = os.lstat(place)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} is {_kind(found.st_mode)}, not a socket, and is left alone: give another path")
    match _probe(path):
        case errno.ECONNREFUSED:
            try:
                _unlink_own(place, found)
            except OSError as error:
                raise ConfigError(f"cannot remove the stale socket {path}: {error.strerror}; remove it") from None
        case errno.EACCES | errno.EPERM:
            raise ConfigError(
                f"{path} is somebody else's socket, and whether a server still listens there may not be asked: "
                "remove it if none does, or give another path"
            )
        case errno.ENOENT:
            return
        case _:
            raise ConfigError(f"{path} is in use by another server: stop that one, or give another path")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device or pipe")


def _probe(path: str) -> int:
    """Return what connecting a datagram socket to `path` gives: 0 or an error number."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path)


def _bind(listener: socket.socket, path: str) -> None:
    try:
        with _umask_turn:
            before = os.umask(CREATION_UMASK)
            try:
                listener.bind(path)
            finally:
                os.umask(before)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"{path} was taken by another server just now: stop it, or give another path") from None
        raise ConfigError(
            f"cannot create {path}: {error.strerror}; mend the permissions of its directory, or give another path"
        ) from None


@contextmanager
def _removed_at_the_end(place: str) -> Iterator[None]:
    with _kept_open(place) as identity:
        try:
            yield
        finally:
            # What cannot be removed now is stale, and the next start takes it over.
            with suppress(OSError):
                _unlink_own(place, identity)


@contextmanager
def _kept_open(place: str) -> Iterator[os.stat_result]:
    """Keep the inode at `place`, so that no other file gets its number."""
    descriptor = os.open(place, os.O_PATH | os.O_NOFOLLOW)
    try:
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _set_access(path: str, place: str, mode: int, group: int | None) -> None:
    if group is not None:
        try:
            os.chown(place, -1, group, follow_symlinks=False)
        except OSError as error:
            raise ConfigError(
                f"cannot give {path} to group {group}: {error.strerror}; "
                "name a group that the relay's user is a member of"
            ) from None
    os.chmod(place, mode)


def _unlink_own(place: str, identity: os.stat_result) -> None:
    """Unlink `place` if it is still the file that `identity` was taken of."""
    try:
        found = os.lstat(place)
        if (found.st_dev, found.st_ino) == (identity.st_dev, identity.st_ino):
            os.unlink(place)
    except FileNotFoundError:
        pass
