"""The hello: every pair of bytes, every option, every split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.splits import byte_by_byte, cut, cuts, every_cut_in_two
from triorelay.protocol import Hello, HelloOption, RemoteProtocolError, decode_hello, encode_hello
from triorelay.protocol._hello import BadHello

ACK, EVENTS, TOKEN = HelloOption.ACK, HelloOption.EVENTS, HelloOption.TOKEN
SHARE, LOSSY = HelloOption.SHARE, HelloOption.LOSSY
ALL_OPTIONS = [HelloOption(bits) for bits in range(32)]

hellos = st.builds(
    Hello,
    st.integers(1, 255),
    st.sampled_from([options for options in ALL_OPTIONS if not options & TOKEN]),
).flatmap(
    lambda hello: st.one_of(
        st.just(hello),
        st.binary(min_size=1, max_size=255).map(lambda token: Hello(hello.id, hello.options | TOKEN, token)),
    )
)


def read(pieces: list[bytes]) -> tuple[Hello | None, bytes] | tuple[str, bytes]:
    """Return the hello and what follows it, or the complaint and the answer to give."""
    said = b""
    try:
        for at, piece in enumerate(pieces):
            said += piece
            found = decode_hello(said)
            if found is not None:
                hello, rest = found
                return hello, rest + b"".join(pieces[at + 1 :])
    except BadHello as error:
        return str(error), error.answer
    return None, b""


def test_a_whole_client_in_a_shell_is_a_hello_and_a_frame() -> None:
    assert read([b"A\x80B1"]) == (Hello(65, HelloOption.NONE), b"B1")


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_every_id_may_ask_for_every_option(options: HelloOption) -> None:
    token = b"secret" if options & TOKEN else b""
    for id in range(1, 256):
        sent = bytes((id, 0x80 + options)) + (b"\x06secret" if token else b"")
        assert read([sent]) == (Hello(id, options, token), b"")
        assert encode_hello(id, options, token) == sent


def test_among_all_65536_pairs_only_those_with_0x80_to_0x9f_begin_a_hello() -> None:
    for id in range(256):
        for mark in range(256):
            begins_hello = 0x80 <= mark <= 0x9F and (id != 0 or (mark & 3 and not mark & 8))
            found = read([bytes((id, mark))])
            if not begins_hello:
                asks = id == 0 and 0x80 <= mark <= 0x9F and mark & 3
                assert found[1] == (b"\0\x03" if asks else b"")
                assert type(found[0]) is str
            elif mark & 4:
                assert found == (None, b"")
            else:
                assert found == (Hello(id, HelloOption(mark & 31)), b"")


@given(hello=hellos, rest=st.binary(max_size=20), places=cuts)
def test_any_split_gives_the_same_hello_and_the_same_rest(hello: Hello, rest: bytes, places: list[int]) -> None:
    sent = encode_hello(hello.id, hello.options, hello.token) + rest
    assert read([sent]) == read(cut(sent, places)) == read(byte_by_byte(sent)) == (hello, rest)


@pytest.mark.parametrize(
    "sent", [b"A\x80", b"A\x83B1", b"\0\x81", b"Z\x87\x05tokenB1", b"A\x84\x01\0", b"A\x84\xff" + bytes(300)]
)
def test_every_cut_in_two_gives_the_same(sent: bytes) -> None:
    whole = read([sent])
    assert isinstance(whole[0], Hello)
    assert all(read(pieces) == whole for pieces in every_cut_in_two(sent))


@given(sent=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda data: b"A\x87" + data)), places=cuts)
def test_garbage_is_a_hello_or_incomplete_or_a_remote_protocol_error_in_any_split(
    sent: bytes, places: list[int]
) -> None:
    assert read([sent]) == read(cut(sent, places)) == read(byte_by_byte(sent))


@given(hello=hellos)
def test_an_incomplete_hello_is_waited_for(hello: Hello) -> None:
    sent = encode_hello(hello.id, hello.options, hello.token)
    for end in range(len(sent)):
        assert decode_hello(sent[:end]) is None


@pytest.mark.parametrize("mark", [0x00, 0x01, 0x7F, 0xA0, 0xFF, ord("1")])
def test_the_second_byte_distinguishes_a_stray_frame_from_a_hello(mark: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"0x80 to 0x9f, not 0x{mark:02x}"):
        decode_hello(bytes((65, mark)))


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"\x80\x00\x00\x01", "é".encode(), b"\r\n"]
)
def test_another_protocol_is_not_taken_for_a_hello(sent: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_hello(sent)


@pytest.mark.parametrize("options", [HelloOption.NONE, TOKEN])
def test_any_id_without_an_answer_is_a_bad_hello(options: HelloOption) -> None:
    with pytest.raises(BadHello, match="must ask for an answer") as caught:
        decode_hello(bytes((0, 0x80 + options)))
    assert caught.value.answer == b""


@pytest.mark.parametrize("options", [SHARE | ACK, SHARE | EVENTS | LOSSY, SHARE | ACK | TOKEN])
def test_any_id_cannot_be_shared(options: HelloOption) -> None:
    with pytest.raises(BadHello, match="a shared id is named") as caught:
        decode_hello(bytes((0, 0x80 + options)))
    assert caught.value.answer == b"\0\x03"


@pytest.mark.parametrize("options", [options for options in ALL_OPTIONS if options & TOKEN])
def test_a_token_of_no_bytes_is_a_bad_hello_and_answered_where_an_answer_was_asked_for(options: HelloOption) -> None:
    with pytest.raises(BadHello, match="1 to 255 bytes, not 0") as caught:
        decode_hello(bytes((65, 0x80 + options, 0)))
    assert caught.value.answer == (b"A\x03" if options & (ACK | EVENTS) else b"")


def test_a_bad_hello_stays_bad_whatever_follows() -> None:
    for sent in (b"A1", b"A1A\x80", b"A1A\x80B1"):
        with pytest.raises(BadHello):
            decode_hello(sent)


@pytest.mark.parametrize(
    ("options", "answer"), [(HelloOption.NONE, False), (ACK, True), (EVENTS, True), (ACK | EVENTS, True)]
)
@pytest.mark.parametrize("more", [HelloOption.NONE, TOKEN, SHARE, LOSSY | TOKEN])
def test_events_imply_an_answer_and_other_options_change_nothing(
    options: HelloOption, answer: bool, more: HelloOption
) -> None:
    hello = Hello(65, options | more)
    assert hello.wants_answer is answer
    assert not hello.is_observer


@pytest.mark.parametrize(
    ("options", "observer"),
    [
        (ACK, False),
        (EVENTS, True),
        (ACK | EVENTS, False),
        (ACK | TOKEN, False),
        (EVENTS | TOKEN, True),
        (EVENTS | LOSSY, False),
    ],
)
def test_id_0_with_events_alone_is_an_observer_and_else_asks_for_any_id(options: HelloOption, observer: bool) -> None:
    assert Hello(0, options).is_observer is observer


def test_a_token_sets_its_bit_and_no_token_clears_it() -> None:
    assert encode_hello(65, ACK, b"t") == b"A\x85\x01t"
    assert encode_hello(65, ACK | TOKEN) == b"A\x81"
    assert encode_hello(0, ACK) == b"\0\x81"
    assert encode_hello(0, EVENTS) == b"\0\x82"


def test_the_longest_token_goes_into_a_hello() -> None:
    assert encode_hello(65, token=bytes(255)) == b"A\x84\xff" + bytes(255)


def test_the_complaint_about_a_bad_hello_is_the_message_alone() -> None:
    assert str(BadHello("no hello", b"A\x03")) == "no hello"
