"""Configuration of the documentation site: `make docs` builds it into build/docs, and warnings are errors."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

from import_matrix import draw_import_matrix  # noqa: E402

import eagle2_ref  # noqa: E402

project = "eagle2-ref"
author = "The eagle2-ref contributors"
version = release = eagle2_ref.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_generated"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of torch and private names in signatures have no page here

default_role = "code"  # single backquotes in docstrings
html_theme = "furo"
html_title = "eagle2-ref"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Pages link to files of the repository by relative paths, which work on a code host. On the site the links lead to the
# repository if its name is known, as in CI, and otherwise to the files next to build/docs.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "")
BASE = f"https://github.com/{REPOSITORY}/tree/main" if REPOSITORY else "../.."
myst_url_schemes = {"http": None, "https": None, "repo": "{{path}}"}
REPOSITORY_LINK = re.compile(r"(?<!!)(\[[^\]]*\])\((?:\.\./)+([^)\s]+)\)")


def link_to_repository(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace relative links that leave docs/ by links to the repository; links between pages are left alone."""
    folder = (DOCS / docname).parent

    def replace(found: re.Match[str]) -> str:
        path = found[0].rpartition("(")[2].rstrip(")")
        target = (folder / path.partition("#")[0]).resolve()
        if target.is_relative_to(DOCS):
            return found[0]
        if not target.exists():
            raise FileNotFoundError(f"docs/{docname}.md links to {path}, which does not exist")
        up = "" if REPOSITORY else "../" * docname.count("/")
        return f"{found[1]}(<repo:{up}{BASE}/{target.relative_to(ROOT)}>)"

    source[0] = REPOSITORY_LINK.sub(replace, source[0])


def draw_pictures(_app: Sphinx) -> None:
    draw_import_matrix(DOCS / "_generated" / "imports.svg")


def setup(app: Sphinx) -> None:
    from pygments.lexers.data import JsonLexer

    app.add_lexer("jsonl", JsonLexer)
    app.connect("builder-inited", draw_pictures)
    app.connect("source-read", link_to_repository)
