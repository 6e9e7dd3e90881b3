"""A version stands in one place, what repeats it agrees with it, and no page installs a release that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from triorelay import __version__

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*/**/*.md")), ROOT / "docs" / "index.md"]


def test_the_changelog_has_a_section_for_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert __version__ in headings


def test_the_image_s_label_is_this_version() -> None:
    label = re.search(r'org\.opencontainers\.image\.version="(\S+)"', (ROOT / "docker" / "Dockerfile").read_text())
    assert label is not None
    assert label[1] == __version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_packages_are_installed_from_what_is_built_here(page: Path) -> None:
    """No index has triorelay yet, so an installer gets a wheel, a directory, or a list of requirements."""
    for line in re.findall(r"\b(?:pip install|pipx install|uv tool install)\b.*", page.read_text()):
        assert re.search(r"dist/triorelay-|'?\.\[|install \.|--requirement", line), line


def test_wheels_that_pages_name_have_this_version() -> None:
    for page in PAGES:
        for version in re.findall(r"triorelay-(\d\S*?)-py3", page.read_text()):
            assert version == __version__, page
