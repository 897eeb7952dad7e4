"""The site, made by Sphinx from the pages and the docstrings: `make docs`. It fetches nothing from the network.

Its source is the whole repository, so that links between pages work as they do where the repository is read. The
sidebar is the list in docs/README.md.
"""

import re
from pathlib import Path

import encvec_store

project = "encvec_store"
author = "The encvec-store authors"
version = release = encvec_store.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/README"
include_patterns = ["*.md", "docs/*.md", "docs/*.rst", "docs/decisions/*.md", "docker/*.md", "benchmarks/**.md"]
exclude_patterns = ["**/.venv*"]

default_role = "code"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88

suppress_warnings = [
    "toc.not_included",  # decisions have a list of their own; tests/test_docs.py looks after the others
    "misc.highlighting_failure",  # psql's own commands among SQL
]

html_theme = "furo"
html_title = "encvec_store"
html_copy_source = False
html_show_sourcelink = False


def sidebar(app, docname, content):
    """Add the lists of the index as tables of contents; they are shown beside the pages."""
    if docname != root_doc:
        return
    for caption, items in re.findall(r"^## (.*)\n\n((?:[- ].*\n)+)", content[0], re.MULTILINE):
        pages = [f"/docs/{page}" for page in re.findall(r"\]\(([^)#]+\.(?:md|rst))\)", items)]
        content[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def front(app, error):
    """Make the site's root lead to the index."""
    if not error:
        to = f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        Path(app.outdir, "index.html").write_text(to, encoding="utf-8")


def setup(app):
    """Tell Sphinx of both."""
    app.connect("source-read", sidebar)
    app.connect("build-finished", front)
