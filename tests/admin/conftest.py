"""What the tests of the admin endpoint share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.admin.endpoint import TOKEN, Endpoint, open_endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A relay's endpoint by TCP, which asks for nothing."""
    async with open_endpoint() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path
