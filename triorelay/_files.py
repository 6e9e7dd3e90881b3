"""Reading the small files that settings name: configuration, tokens, certificates and keys.

1. A file is read once, from its beginning to its end, and has at most `LARGEST` bytes.
2. A pipe (`<(command)` of a shell, a FIFO, /dev/stdin) is read to its end, which must come within `PATIENCE` seconds.
   So a FIFO without a writer is an error, not a process that hangs.
3. A byte order mark at the start is ignored: editors put it there, and no format here uses it.

A regular file on a disk or a network that hangs blocks the caller: in a running relay, call this from a thread.
"""

import codecs
import errno
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .protocol import ConfigError

LARGEST = 1 << 20
"""Bytes; the largest certificate bundles of operating systems have about 250 KB."""
PATIENCE = 5.0
PIECE = 65536
SHORTEST_TOKEN = 16
"""Bytes; a random one cannot be guessed."""
LONGEST_TOKEN = 255
"""Bytes; what a hello has room for."""


def read_file(path: str | Path) -> bytes:
    """Return what is in a file, without a byte order mark.

    Raises:
        OSError: it cannot be read, is too large, or is a pipe that does not end in time; `strerror` says which.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = _read(descriptor, str(path))
    finally:
        os.close(descriptor)
    return content.removeprefix(codecs.BOM_UTF8)


def _read(descriptor: int, path: str) -> bytes:
    is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    deadline = time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    content = bytearray()
    while True:
        if not is_regular and not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            raise OSError(errno.ETIMEDOUT, f"it is a pipe, and its end did not come within {PATIENCE:.0f} s", path)
        piece = os.read(descriptor, PIECE)
        if not piece:
            return bytes(content)
        content += piece
        if len(content) > LARGEST:
            raise OSError(errno.EFBIG, f"it has more than {LARGEST} bytes", path)


def read_setting(path: Path, setting: str) -> bytes:
    """Return what is in a file that `setting` names; raise a ConfigError of one line if it cannot be read."""
    try:
        return read_file(path)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}") from None


def read_token(path: Path, setting: str, *, shortest: int = SHORTEST_TOKEN) -> bytes:
    """Return the token that a file holds, without the white space around it.

    Args:
        path: the file.
        setting: what names it, for the error.
        shortest: bytes that it must have.

    Raises:
        ConfigError: the file cannot be read, or its token is too short or too long; one line.
    """
    token = read_setting(path, setting).strip()
    if not shortest <= len(token) <= LONGEST_TOKEN:
        raise ConfigError(f"{setting}: a token has {shortest} to {LONGEST_TOKEN} bytes, not {len(token)}")
    return token


@contextmanager
def file_in_memory(content: bytes) -> Iterator[str]:
    """Give `content` a path for the length of the block, for libraries that take nothing else."""
    descriptor = os.memfd_create("triorelay", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
