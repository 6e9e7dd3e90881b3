"""`/`: the dashboard. One page that contains its style and its script, and loads nothing else.

It is assembled from the files of `dashboard/` when the endpoint starts. Its policy names the digests of its style and
script, so that the browser runs exactly these and no injected code.
"""

import base64
import hashlib
from importlib.resources import files

from ._messages import Reply

SCRIPTS = ("format.js", "feed.js", "traffic.js", "clients.js", "realm.js", "pairs.js", "events.js", "main.js")
"""In the order in which they become one script."""


def dashboard() -> Reply:
    """Return the dashboard, read from the package."""
    style = _read("style.css")
    script = "\n".join(_read(name) for name in SCRIPTS)
    page = _read("page.html")
    page = page.replace("<style></style>", f"<style>{style}</style>")
    page = page.replace('<script type="module"></script>', f'<script type="module">{script}</script>')
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digest(script)}",
            f"style-src {_digest(style)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return Reply(page.encode(), "text/html; charset=utf-8", headers=(("Content-Security-Policy", policy),))


def _read(name: str) -> str:
    return files(__package__).joinpath("dashboard", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
