"""Configuration of the site of the documentation: Sphinx with MyST (`make docs`).

The source of the site is the whole repository, so that each link between two of its files is the same on GitHub and in
the site. Sphinx reads only the Markdown that `include_patterns` names.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# Covalent writes its config where this variable says when autodoc imports it. The user's config is not to be touched.
_covalent = tempfile.TemporaryDirectory(prefix="cirro-docs-")
os.environ["COVALENT_CONFIG_DIR"] = _covalent.name

# First, as in every program: Covalent loads the plugin while it is imported.
import covalent  # noqa: E402, F401

from covalent_cirro import __version__  # noqa: E402

project = "covalent-cirro"
author = "the developers of covalent-cirro"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "infra/*.md", "docker/*.md", "examples/**.md", "benchmarks/*.md"]
exclude_patterns = ["build", ".*", "**/.*", "sweep-output", "pipeline-output"]

html_theme = "furo"
html_title = f"covalent-cirro {version}"
html_copy_source = False
highlight_language = "none"

myst_heading_anchors = 4  # the same anchors as GitHub's
myst_fence_as_directive = ["mermaid"]

default_role = "py:obj"  # `name` in a docstring is a name of the code
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature would repeat what "Args" says
napoleon_google_docstring = True
napoleon_numpy_docstring = False

PAGES = """
```{toctree}
:hidden:
:caption: Use

docs/first-sweep
docs/pipeline
docs/deploy
docs/settings
docs/cli
docs/maps
docs/emulator
docs/waiting
docs/report
docs/stored
docs/checkpoints
docs/search
docs/serving
docs/retries
docs/reuse
docs/resume
docs/from/README
examples/README
examples/ci/README
docker/README
infra/README
```

```{toctree}
:hidden:
:caption: Look up

docs/reference
docs/faults
docs/security
benchmarks/README
benchmarks/RESULTS
benchmarks/PEERS
benchmarks/SEARCH
benchmarks/SERVING
CHANGELOG
```

```{toctree}
:hidden:
:caption: Develop

CONTRIBUTING
SECURITY
docs/architecture
docs/electron
docs/data-in-s3
docs/decisions/README
```
"""
"""The tree of pages. It is added to the README here, because GitHub would show it as code."""


def add_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Add the tree of pages to the first page, and to two others the pages of their folders."""
    if name == root_doc:
        source[0] += PAGES
    below = {"docs/decisions/README": "[0-9]*", "docs/from/README": "[a-z]*"}.get(name)
    if below:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{below}\n```\n"


def add_start(app: Sphinx, exception: Exception | None) -> None:
    """Write the page that a browser opens first; Sphinx names the first page after its file."""
    if exception is None:
        start = f'<meta http-equiv="refresh" content="0; url={root_doc}.html"><a href="{root_doc}.html">{project}</a>\n'
        (Path(app.outdir) / "index.html").write_text(start)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_pages)
    app.connect("build-finished", add_start)
