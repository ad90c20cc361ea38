"""Settings of Sphinx for the site: `make docs` builds it into build/docs."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# notebooks train in processes of their own, which must find the same jaxshare
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE.parent / ".cache" / "jax"))
os.environ["JAX_PLATFORMS"] = "cpu"

project = "jaxshare"
author = "The jaxshare maintainers"
copyright = "the jaxshare maintainers; Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "pages"]
exclude_patterns = ["settings.md", "generated/parts", "results/*.md"]
templates_path = ["templates"]

# Markdown
myst_enable_extensions = ["dollarmath", "fieldlist", "attrs_inline"]
myst_heading_anchors = 4

html_math_renderer = "mathml"  # docs/pages/mathml.py

# notebooks: executed when the site is built, and kept until their code changes
nb_execution_mode = "off" if os.environ.get("NOTEBOOKS") == "off" else "cache"
nb_execution_cache_path = str(HERE.parent / ".cache" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_execution_excludepatterns = []

# docstrings
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80

# the pages
html_theme = "furo"
html_title = "jaxshare"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
