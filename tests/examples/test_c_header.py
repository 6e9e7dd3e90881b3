"""docs/examples/c/triorelay.h writes and reads the same bytes as the library, whatever it is given."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.components import require
from tests.conftest import C_SOURCES
from tests.examples.scene import EXAMPLES
from tests.vectors import FILE
from triorelay.protocol import (
    CallKind,
    Event,
    FrameReader,
    HelloOption,
    MessageReader,
    RemoteProtocolError,
    address_frames,
    encode_hello,
    encode_message,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("gcc")

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LIMIT = 600


class Header:
    """The header in a process of its own, compiled with the sanitizers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, *words: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"it ended with {self._process.wait()}"
        return answer.strip()

    def write(self, what: str, *words: object) -> str:
        """Return the bytes that it writes, in hexadecimal."""
        return self.ask(what, *words).removeprefix("-")

    def read(self, data: bytes) -> list[dict[str, Any]] | None:
        """Return the items that it finds, in the form of the vectors."""
        *words, last = ["", *self.ask("read", data.hex() or "-").split()]
        if last == "invalid":
            return None
        return joined([*words, last][1:])

    def read_messages(self, limit: int, data: bytes) -> tuple[list[bytes], int]:
        *payloads, discarded = self.ask("messages", limit, data.hex() or "-").split()
        return [bytes.fromhex(payload.removeprefix("-")) for payload in payloads], int(discarded)


def joined(words: list[str]) -> list[dict[str, Any]]:
    """Join adjacent data of one source, as the library does."""
    triples = [(words[i], int(words[i + 1]), int(words[i + 2])) for i in range(0, len(words), 3)]
    items: list[dict[str, Any]] = []
    for (kind, first), group in itertools.groupby(triples, lambda triple: triple[:2]):
        seconds = [second for _, _, second in group]
        if kind == "d":
            items.append({"source": first, "data": bytes(seconds).hex()})
        else:
            items.extend({"event": first, "argument": second} for second in seconds)
    return items


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Header]:
    program = tmp_path_factory.mktemp("header") / "header"
    compile_with_header([*STRICT, *SANITIZED], C_SOURCES / "header.c", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Header(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def compile_with_header(flags: list[str], source: Path, program: Path) -> None:
    command: list[str | Path] = [require("gcc"), *flags, "-I", EXAMPLES / "c", "-o", program, source]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def vectors() -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text())
    return loaded


def test_it_writes_what_the_vectors_say(header: Header, vectors: dict[str, list[dict[str, Any]]]) -> None:
    for hello in vectors["hello"]:
        assert header.write("hello", hello["id"], hello["options"], hello["token"] or "-") == hello["bytes"]
    for frames in vectors["frames"]:
        assert header.write("frames", frames["id"], frames["data"] or "-") == frames["bytes"]
    for request in vectors["requests"]:
        assert header.write("request", request["code"], request["argument"]) == request["bytes"]
    for message in vectors["messages"]:
        assert header.write("message", message["payload"] or "-") == message["data"]
    for call in vectors["calls"]:
        rest = bytes([call["reason"]] if call["kind"] == CallKind.FAIL else []) + bytes.fromhex(call["payload"])
        assert header.write("call", call["kind"], call["number"], rest.hex() or "-") == call["message"]


def test_it_reads_what_the_vectors_say(header: Header, vectors: dict[str, list[dict[str, Any]]]) -> None:
    for received in vectors["received"]:
        assert header.read(bytes.fromhex(received["bytes"])) == received["items"], received
    for reading in vectors["message_reading"]:
        payloads, discarded = header.read_messages(LIMIT, bytes.fromhex(reading["data"]))
        assert [payload.hex() for payload in payloads] == reading["payloads"]
        assert discarded == reading["discarded"]
    for call in vectors["calls"]:
        words = f"{call['kind']} {call['number']} {call['reason']} {call['payload'] or '-'}"
        assert header.ask("read-call", call["message"]) == words
    for message in vectors["no_calls"]:
        assert header.ask("read-call", message or "-") == "invalid"


def test_it_refuses_a_hello_that_the_protocol_does_not_allow(header: Header) -> None:
    assert header.write("hello", 0, 0, "-") == ""
    assert header.write("hello", 65, 1, "00" * 256) == ""
    assert header.write("hello", 0, 9, "-") == ""


@given(st.integers(1, 255), st.integers(0, 31), st.binary(max_size=255))
def test_its_hellos_are_those_of_the_library(header: Header, id: int, options: int, token: bytes) -> None:
    expected = encode_hello(id, HelloOption(options), token)
    assert header.write("hello", id, options, token.hex() or "-") == expected.hex()


@given(st.integers(1, 255), st.binary(max_size=50))
def test_its_frames_are_those_of_the_library(header: Header, id: int, data: bytes) -> None:
    assert header.write("frames", id, data.hex() or "-") == address_frames(id, data).hex()


payloads = st.one_of(
    st.binary(max_size=20),
    st.integers(245, 520).map(bytes),
    st.integers(245, 520).map(lambda size: b"\x01" * size),
    st.lists(st.sampled_from([b"\x00", b"\x01" * 249, b"\x01" * 250, b"\x02" * 254]), max_size=3).map(b"".join),
)


@given(payloads)
def test_its_messages_are_those_of_the_library(header: Header, payload: bytes) -> None:
    assert header.write("message", payload.hex() or "-") == encode_message(payload).hex()


@given(st.lists(st.integers(0, 3), max_size=40).map(bytes))
def test_it_finds_the_same_frames_and_events(header: Header, data: bytes) -> None:
    try:
        items: list[dict[str, Any]] | None = [
            {"event": item.code, "argument": item.argument}
            if isinstance(item, Event)
            else {"source": item[0], "data": item[1].hex()}
            for item in FrameReader().feed(data)
        ]
    except RemoteProtocolError:
        items = None
    assert header.read(data) == items


pieces = st.one_of(payloads.map(encode_message), st.binary(max_size=12), st.just(b"\x00"))


@given(st.lists(pieces, max_size=4).map(b"".join))
def test_it_finds_the_same_messages_among_garbage(header: Header, data: bytes) -> None:
    reader = MessageReader(limit=10_000)
    assert header.read_messages(10_000, data) == (reader.feed(data), reader.discarded)


def test_a_message_that_is_too_long_is_discarded_whole(header: Header) -> None:
    data = encode_message(b"fits") + encode_message(b"x" * 1000) + encode_message(b"fits too")
    assert header.read_messages(8, data) == ([b"fits", b"fits too"], 1)
