"""The site: `make docs`. Pages are Markdown; they read well without Sphinx too."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import geofield  # noqa: E402

project = "geofield"
author = "The geofield authors"
copyright = "The geofield authors, Apache License 2.0"
version = release = geofield.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"geofield {version}"
# Where the project's own files are meant that are no pages (benchmarks, k8s), links are to the files.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
nb_execution_mode = "off"  # tests execute them
nb_merge_streams = True
napoleon_google_docstring = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
highlight_language = "text"
# Code in docstrings and on pages that names no language is shown as it is.
suppress_warnings = ["myst.xref_missing", "config.cache"]


def _copy_notebooks(app: Any) -> None:
    """The notebooks lie beside the pages while the site is built."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8").replace("../docs/images/", "../images/")
        if not (target / path.name).is_file() or (target / path.name).read_text(encoding="utf-8") != text:
            (target / path.name).write_text(text, encoding="utf-8")
    for path in target.glob("*.ipynb"):
        if not (ROOT / "notebooks" / path.name).is_file():
            path.unlink()


def _clean(app: Any, error: Any) -> None:
    shutil.rmtree(HERE / "notebooks", ignore_errors=True)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", _copy_notebooks)
    app.connect("build-finished", _clean)
