"""The life of a Unix listener's path: which process may take it, when clients may connect, when it is removed.

Theory of operation:

1. The relay locks `PATH.lock` before it looks at PATH, and until the listener ends; so of two relays that start at once
   only one ever touches PATH. It never unlinks the lock file: a relay that waits to open it and one that has just
   removed it would hold locks on two different files. It opens the file before it tries to create it, because in a
   directory like /tmp the kernel refuses to create a file that another user has (fs.protected_regular).
2. Other servers know nothing of that lock. To find out whether one still listens, the relay connects a datagram socket:
   the kernel answers EPROTOTYPE for a path of a live stream socket and ECONNREFUSED for a stale one. In neither case
   does the server see a client.
3. Only a stale socket is replaced. Anything else at PATH, a symbolic link too, is refused and left alone.
4. At bind(2) the file gets the socket's own mode less the umask, so it never lets in more users. Then the relay sets
   group and mode, and only then the socket listens: until then the kernel refuses every connection. The relay opens the
   file without following a link, checks it, and changes it by its descriptor, so that no user can put another file in
   its place.
5. At the end the relay unlinks PATH only if it is still the inode that was bound. It keeps that inode open until then,
   because a file system may give the number of a removed inode to the next file at once (ext4 does), and the listener
   may be closed long before the path is removed.
6. PATH may be removed or replaced while the listener lives, and then clients do not reach it. To listen there again the
   relay follows rules 1 to 4, so it takes the path from no other server. If the lock file is gone too, another relay
   may have made a new one and hold PATH; the attempt to take the new lock shows that.
7. A listener that another process opened and passed on has its path from there. The relay takes no lock for it, and
   never changes or removes it.
8. A path that begins with @ is a name of the abstract namespace (unix(7)): no file, no lock, no mode. The kernel gives
   it to one socket at a time, and lets every user of the network namespace connect.
"""

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress

from ..protocol import MAX_PATH_BYTES, ConfigError, UnixAddress
from ._listening import LISTENING, ListeningSocket


class SocketFile:
    """A Unix listener and the path that leads to it.

    The methods may block, for as long as the file system takes: in a running relay, call them from a thread.

    Attributes:
        path: as given.
    """

    def __init__(self, path: str, *, mode: int, group: int | None, backlog: int) -> None:
        """Name the path; nothing is opened yet.

        Args:
            path: at most 107 bytes; a relative path is relative to the working directory at this moment. One that
                begins with @ is an abstract name.
            mode: permission bits of the file.
            group: group id of the file, or None to leave what the directory gives.
            backlog: as for listen(2).

        Raises:
            ConfigError: there can be no such path.
        """
        check_socket_path(path)
        self.path = path
        self._is_abstract = path.startswith("@")
        self._place = UnixAddress(path).name if self._is_abstract else os.fsencode(_absolute(path))
        self._real_place = self._place if self._is_abstract else os.path.realpath(self._place)
        self._mode = mode
        self._group = group
        self._backlog = backlog
        self._lock: int | None = None
        self._file: int | None = None

    def listen(self) -> socket.socket:
        """Return a non-blocking socket that listens at the path, which the caller closes.

        May be called again when the path no longer leads to the socket before, which continues with those that had
        connected to it.

        Raises:
            ConfigError: the path cannot be had; one line says why and what to do.
        """
        if self.can_be_lost and self._lock is None:
            raise ConfigError(f"{self.path} was removed or replaced: restart what opened it, such as its systemd unit")
        inherited = LISTENING.take(lambda one: one.place in (self._place, self._real_place))
        if inherited is not None and inherited.given:
            self._watch()
            LISTENING.note(inherited)
            return inherited.socket
        listener = inherited.socket if inherited else socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if inherited is None and self._is_abstract:
                _bind(listener, self.path, self._mode)
            elif inherited is None:
                self._take_lock()
                _clear_stale(self.path, self._place)
                _bind(listener, self.path, self._mode)
                self._keep_file()
            elif inherited.path_descriptors is not None:
                # Lock and file move with their descriptors.
                self._lock, self._file = inherited.path_descriptors
                self._set_access(self._file)
            listener.setblocking(False)
            listener.listen(self._backlog)
        except BaseException:
            listener.close()
            raise
        kept = None if self._lock is None or self._file is None else (self._lock, self._file)
        LISTENING.note(ListeningSocket(listener, self._place, kept))
        return listener

    def _watch(self) -> None:
        """Keep the file of a socket that another process passed on open, if it can be seen from here."""
        with suppress(OSError, ValueError):
            file = os.open(self._place, os.O_PATH | os.O_NOFOLLOW)
            if stat.S_ISSOCK(os.fstat(file).st_mode):
                self._file = file
            else:
                os.close(file)

    def _take_lock(self) -> None:
        if self._lock is None or not _leads_to(self._lock, self._place + b".lock"):
            self._lock = _in_place_of(self._lock, _locked(self.path, self._place))

    def _keep_file(self) -> None:
        """Keep what was bound open, and give it its group."""
        try:
            file = os.open(self._place, os.O_PATH | os.O_NOFOLLOW)
        except OSError as error:
            with suppress(OSError):
                if stat.S_ISSOCK(os.lstat(self._place).st_mode):
                    os.unlink(self._place)
            raise ConfigError(f"cannot keep {self.path} open: {error.strerror}; fix that and start again") from None
        found = os.fstat(file)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            os.close(file)
            raise ConfigError(
                f"another file took the place of {self.path} while it was made: check the permissions of its directory"
            )
        self._file = _in_place_of(self._file, file)
        self._set_access(self._file)

    def _set_access(self, file: int) -> None:
        """Change the open file, even if its path leads elsewhere by now."""
        exactly = f"/proc/self/fd/{file}"
        if self._group is not None:
            try:
                os.chown(exactly, -1, self._group)
            except OSError as error:
                raise ConfigError(
                    f"cannot give {self.path} to group {self._group}: {error.strerror}; "
                    "name a group that the relay's user is a member of"
                ) from None
        # The umask or a default ACL of the directory may have changed the mode.
        if stat.S_IMODE(os.fstat(file).st_mode) != self._mode:
            os.chmod(exactly, self._mode)

    @property
    def can_be_lost(self) -> bool:
        """Whether a file leads to the listener, so that other programs can remove or replace it."""
        return self._file is not None

    def leads_here(self) -> bool:
        """Return whether the path, which is no abstract name, is still the file that was bound last."""
        return self._file is not None and _leads_to(self._file, self._place)

    def close(self) -> None:
        """Remove the path if it is still the file that was bound, and release the lock. Idempotent."""
        if self._file is not None:
            # A file that cannot be removed now is stale, and the next start replaces it.
            with suppress(OSError):
                if LISTENING.owns_paths and self._lock is not None and self.leads_here():
                    os.unlink(self._place)
            os.close(self._file)
        if self._lock is not None:
            os.close(self._lock)
        self._file = self._lock = None


def _in_place_of(before: int | None, new: int) -> int:
    """Return the descriptor of what is open as `new`: that of the one before, which a handover may be about to send."""
    if before is None:
        return new
    os.dup2(new, before, inheritable=False)
    os.close(new)
    return before


def _leads_to(descriptor: int, place: bytes) -> bool:
    """Return whether `place` is the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.lstat(place), os.fstat(descriptor))
    except OSError:
        return False


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        gone = os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
        raise ConfigError(
            f"the working directory {gone} was removed, so {path} leads nowhere: "
            "start in another directory, or give a path that begins with /"
        ) from None


def check_socket_path(path: str) -> None:
    """Refuse a path at which there can be no Unix socket, whatever the directory holds.

    Raises:
        ConfigError: says what is wrong with it.
    """
    raw = os.fsencode(path)
    if raw in (b"", b"@") or b"\0" in raw:
        raise ConfigError("a Unix socket needs a path that is not empty and holds no zero byte")
    if len(raw) > MAX_PATH_BYTES:
        raise ConfigError(
            f"the socket path of {len(raw)} bytes that begins with {path[:32]} is too long: "
            f"at most {MAX_PATH_BYTES} bytes; give a shorter one, or one relative to the working directory"
        )
    if raw.endswith(b"/"):
        raise ConfigError(f"{path} names a directory: give the path of a socket in it, as in {path}server_socket")


def _locked(path: str, place: bytes) -> int:
    lock = place + b".lock"
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(lock, flags)
        except FileNotFoundError:
            descriptor = os.open(lock, flags | os.O_CREAT, 0o600)
    except OSError as error:
        raise _no_lock(path, place, error) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path}.lock is not a regular file: remove it, or give another path")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"{path} is in use by another relay: stop that one, or give another path") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _no_lock(path: str, place: bytes, error: OSError) -> ConfigError:
    directory = os.path.dirname(path) or "."
    match error.errno:
        case errno.ENOENT:
            return ConfigError(
                f"there is no directory {directory} for the socket {path}: create it, or give another path"
            )
        case errno.ENOTDIR:
            return ConfigError(f"{directory} is not a directory, so {path} cannot be: give another path")
        case errno.ELOOP if os.path.islink(place + b".lock"):
            return ConfigError(f"{path}.lock is a symbolic link and is not followed: remove it, or give another path")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return ConfigError(
                f"cannot open {path}.lock: {error.strerror}; "
                f"run as a user who may write to it and to {directory}, or give another path"
            )
    return ConfigError(f"cannot open {path}.lock: {error.strerror}; fix that, or give another path")


def _clear_stale(path: str, place: bytes) -> None:
    """Unlink a stale socket; leave an empty path as it is."""
    try:
        found = os.lstat(place)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} is {_kind(found.st_mode)}, not a socket, and is left alone: give another path")
    match _probe(path):
        case errno.ECONNREFUSED:
            try:
                if os.path.samestat(os.lstat(place), found):
                    os.unlink(place)
            except FileNotFoundError:
                return
            except OSError as error:
                raise ConfigError(f"cannot remove the stale socket {path}: {error.strerror}; remove it") from None
        case errno.EACCES | errno.EPERM:
            raise ConfigError(
                f"{path} is a socket of another user, and this process may not ask whether a server listens there: "
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


def _bind(listener: socket.socket, path: str, mode: int) -> None:
    try:
        os.fchmod(listener.fileno(), mode)
        listener.bind(UnixAddress(path).name)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            when = "is in use by another server" if path.startswith("@") else "was taken by another server just now"
            raise ConfigError(f"{path} {when}: stop it, or give another path") from None
        raise ConfigError(
            f"cannot create {path}: {error.strerror}; fix the permissions of its directory, or give another path"
        ) from None
