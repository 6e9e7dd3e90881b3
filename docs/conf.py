"""Sphinx: how the documentation is built. Warnings are errors; links inside it are checked."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from triorelay import __version__  # noqa: E402  (only now is it to be found, where it is not installed)

project = "triorelay"
author = "The triorelay authors"
copyright = author
release = version = __version__

extensions = ["commands", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]

html_theme = "furo"
html_title = f"triorelay {release}"
html_static_path = ["static"]
html_css_files = ["code.css"]

# What is copied from a block with prompts is what is typed, without the prompts and without what was printed.
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

# In docstrings, what stands in single backticks is code.
default_role = "literal"

autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints = "description"
napoleon_use_ivar = True
# Attributes of a dataclass are described in its docstring; a second entry for each would say nothing.
autodoc_default_options = {"members": True, "undoc-members": False}

man_pages = [("reference/commands", "triorelay", "relay between processes with one-byte names", [author], 1)]
man_show_urls = True
