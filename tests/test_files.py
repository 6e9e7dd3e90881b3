"""Reading the small files that settings name: once each, to their end, and never for ever."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from triorelay import _files
from triorelay._files import LARGEST, file_in_memory, read_file, read_token
from triorelay.protocol import ConfigError


def test_a_file_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbfunix = []\n")
    assert read_file(file) == b"unix = []\n"


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(LARGEST))
    assert len(read_file(file)) == LARGEST
    file.write_bytes(bytes(LARGEST + 1))
    with pytest.raises(OSError, match="more than 1048576 bytes"):
        read_file(file)
    with pytest.raises(OSError, match="more than 1048576 bytes"):
        read_file("/dev/zero")


def test_a_pipe_is_read_to_its_end_however_it_is_filled(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with open(fifo, "wb", buffering=0) as writer:
            writer.writelines(b"x" * 30_000 for _ in range(10))

    writing = threading.Thread(target=write)
    writing.start()
    assert read_file(fifo) == b"x" * 300_000
    writing.join()


@pytest.mark.parametrize("is_written", [False, True], ids=["nothing writes", "its writer stays"])
def test_a_pipe_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool) -> None:
    monkeypatch.setattr(_files, "PATIENCE", 0.05)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR) if is_written else None
    if writer is not None:
        os.write(writer, b"a beginning")
    with pytest.raises(OSError, match="its end did not come") as error:
        read_file(fifo)
    assert error.value.filename == str(fifo)
    if writer is not None:
        os.close(writer)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")


def test_a_token_is_what_is_between_white_space(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xef\xbb\xbf 0123456789abcdef\r\n")
    assert read_token(file, "token_file") == b"0123456789abcdef"
    file.write_bytes(b"short\n")
    assert read_token(file, "token_file", shortest=1) == b"short"
    with pytest.raises(ConfigError, match=r"^token_file: a token has 16 to 255 bytes, not 5$"):
        read_token(file, "token_file")
    with pytest.raises(ConfigError, match=r"^token_file: cannot read .*/none: No such file"):
        read_token(tmp_path / "none", "token_file")


def test_content_has_a_path_for_the_length_of_a_block() -> None:
    content = os.urandom(200_000)
    with file_in_memory(content) as path:
        assert Path(path).read_bytes() == content
        assert Path(path).read_bytes() == content
    assert not Path(path).exists()
