"""Ids: what is accepted for one, how it is shown, which sets of them a person can write."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.protocol import ALL_IDS, RELAY, id_byte, id_from_path, id_name, id_text, parse_id, parse_id_set

ids = st.integers(1, 255)


def test_text_byte_string_and_number_mean_the_same_id() -> None:
    for id in range(1, 256):
        assert id_byte(chr(id)) == id_byte(bytes((id,))) == id_byte(id) == id


@pytest.mark.parametrize("value", ["", "AB", b"", b"AB", 0, 256, -1, "\0", b"\0", "Ā", "🙂"], ids=repr)
def test_what_is_not_one_byte_from_1_to_255_is_no_id(value: str | bytes | int) -> None:
    with pytest.raises(ValueError, match="one byte from 1 to 255"):
        id_byte(value)


@pytest.mark.parametrize("value", [None, 65.0, ["A"], True, False, object()])
def test_another_type_is_no_id(value: object) -> None:
    with pytest.raises(TypeError, match="one-character str, one byte or an int"):
        id_byte(value)  # type: ignore[arg-type]


def test_a_returned_id_compares_with_a_character_and_is_accepted_again() -> None:
    for id in range(1, 256):
        assert id_text(id) == chr(id)
        assert id_byte(id_text(id)) == id


def test_what_is_shown_can_be_typed() -> None:
    for id in range(1, 256):
        assert parse_id(id_name(id)) == id


def test_what_is_shown_is_one_visible_character_or_hex_and_never_decimal() -> None:
    for id in range(256):
        name = id_name(id)
        character = chr(id)
        visible = character.isascii() and character.isprintable() and not character.isspace()
        assert name == (character if visible else f"0x{id:02x}")


def test_hex_may_be_typed_in_either_case() -> None:
    for id in range(1, 256):
        assert parse_id(f"0x{id:02x}") == parse_id(f"0X{id:02X}") == id


def test_a_space_may_be_typed_although_it_is_not_shown() -> None:
    assert parse_id(" ") == 0x20
    assert id_name(0x20) == "0x20"


def test_a_digit_names_the_character_and_not_the_number() -> None:
    assert parse_id("7") == ord("7")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AB",
        "65",
        "0x",
        "0x1",
        "0x00",
        "0x100",
        "0xgg",
        "0x+1",
        "0x 1",
        "0x1_",
        "0x\uff11\uff12",
        "é",
        "\n",
        "\x7f",
        "x41",
    ],
)
def test_what_cannot_be_typed_for_an_id_says_what_can(text: str) -> None:
    with pytest.raises(ValueError, match=r"one printable ASCII character, or 0x01 to 0xff"):
        parse_id(text)


@given(st.text(max_size=6))
def test_any_text_is_an_id_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_id(text) in ALL_IDS


def test_an_asterisk_alone_means_all_ids_and_never_the_relay() -> None:
    assert parse_id_set("*") == parse_id_set(" * ") == ALL_IDS == frozenset(range(1, 256))
    assert RELAY not in ALL_IDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", b"A"),
        ("P-R,0x80-0x8f", b"PQR" + bytes(range(0x80, 0x90))),
        (" a , c - e ", b"acde"),
        ("A,A,A-B", b"AB"),
        ("A-A", b"A"),
        ("0x2a,0x2c,0x2d", b"*,-"),
        ("0x01-0xff", bytes(range(1, 256))),
        ("+-0x2d", b"+,-"),
    ],
)
def test_a_set_is_a_list_of_ids_and_ranges(text: str, expected: bytes) -> None:
    assert parse_id_set(text) == frozenset(expected)


@given(st.lists(st.tuples(ids, ids).map(sorted), min_size=1, max_size=5))
def test_a_set_holds_exactly_the_ids_of_its_ranges(ranges: list[list[int]]) -> None:
    text = ",".join(f"0x{low:02x}-0x{high:02x}" for low, high in ranges)
    assert parse_id_set(text) == {id for low, high in ranges for id in range(low, high + 1)}


@pytest.mark.parametrize(
    "text", ["", ",", "A,", "A-", "-", "-A", "--", "A-B-C", "AB", "A;B", "*,A", "A,*", "*-Z", "0x00-A"]
)
def test_a_part_that_is_no_id_or_range_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is neither an id nor a range such as A-C"):
        parse_id_set(text)


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="'C-A' runs backwards"):
        parse_id_set("B,C-A")


@given(st.text(max_size=12))
def test_any_text_is_a_set_without_the_relay_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_id_set(text) <= ALL_IDS


@pytest.mark.parametrize(
    ("path", "id"),
    [
        (b"A", b"A"),
        (b"/run/relay/A", b"A"),
        (b"mods/A", b"A"),
        (b"Alpha", b"A"),
        (b"./B", b"B"),
        (b"/tmp/x.d/client.sock", b"c"),
        (b"\xff\xfe", b"\xff"),
        (b"dir/\n", b"\n"),
    ],
)
def test_the_id_of_a_path_is_the_first_byte_of_its_last_component(path: bytes, id: bytes) -> None:
    assert bytes((id_from_path(path),)) == id


@pytest.mark.parametrize("path", [b"", b"/", b"A/", b"\0", b"\0A", b"\0dir/A"])
def test_an_unbound_socket_and_an_abstract_name_give_no_id(path: bytes) -> None:
    assert id_from_path(path) == 0


@given(st.binary(max_size=107).filter(lambda path: b"\0" not in path))
def test_a_path_without_a_slash_gives_its_first_byte_as_the_article_has_it(path: bytes) -> None:
    name = path.replace(b"/", b"")
    assert id_from_path(name) == (name[0] if name else 0)
    assert id_from_path(b"some/where/" + name) == id_from_path(name)
