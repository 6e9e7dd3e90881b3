"""The dashboard's page, as it is served."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

import pytest

from triorelay.admin._page import dashboard

if TYPE_CHECKING:
    from tests.admin.endpoint import Endpoint


async def test_it_is_one_page_that_the_browser_may_trust(endpoint: Endpoint) -> None:
    got = await endpoint.fetch("/")
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in got.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in str(policy)
    assert policy["frame-ancestors"] == "'none'"
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{element}[^>]*>(.+?)</{element}>".encode(), got.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"


@pytest.mark.parametrize("path", ["/", "/healthz", "/status", "/nothing"])
async def test_no_reply_is_kept_or_taken_for_what_it_is_not(endpoint: Endpoint, path: str) -> None:
    headers = (await endpoint.fetch(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


def test_it_loads_nothing_and_holds_no_data() -> None:
    page = dashboard().body.decode()
    assert not re.findall(r"<link(?![^>]*href=\"data:)|\ssrc=|@import|url\(", page)
    # The names of XML are no addresses.
    assert set(re.findall(r"https?://[^\s\"'`]+", page)) <= {"http://www.w3.org/2000/svg"}


def test_it_has_no_inline_handlers_or_styles_which_the_policy_would_refuse() -> None:
    page = dashboard().body.decode()
    markup = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.findall(r"\s(?:on\w+|style)=", markup)
