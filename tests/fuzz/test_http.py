"""To any input the admin endpoint answers or hangs up, and it answers the next client."""

from __future__ import annotations

from contextlib import suppress

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.admin.endpoint import PATIENCE, open_endpoint

words = st.sampled_from(
    [
        b"GET",
        b"POST",
        b" ",
        b"/",
        b"/status",
        b"/metrics",
        b"/clients/",
        b"A/close",
        b"?from=",
        b"%00",
        b" HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"Host: ",
        b"X-Triorelay: 1\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Authorization: Bearer ",
        b"Origin: null\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"ffffffff\r\n",
    ]
)
requests = st.lists(words | st.binary(max_size=8), max_size=20).map(b"".join)


@given(said=st.lists(requests, max_size=3))
def test_garbage_is_answered_or_hung_up_on(said: list[bytes]) -> None:
    async def main() -> None:
        async with open_endpoint() as endpoint:
            for data in said:
                with trio.fail_after(PATIENCE):
                    async with endpoint.connect() as connection:
                        with suppress(trio.BrokenResourceError):
                            await connection.stream.send_all(data)
                            await connection.stream.send_eof()
                            while await connection.stream.receive_some():
                                pass
            assert (await endpoint.fetch("/healthz")).status == 200

    trio.run(main)
