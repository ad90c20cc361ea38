"""What the site has besides the files of docs/: pages made from the code, and how links and docstrings read.

A part of Sphinx's settings (docs/conf.py); nothing of it is installed with jaxshare.
"""

from pages import docstrings, generate, links, mathml


def setup(app):
    """Sphinx calls this."""
    app.connect("builder-inited", generate.write_all)
    app.connect("source-read", links.rewrite)
    app.connect("autodoc-process-docstring", docstrings.for_autodoc)
    app.add_html_math_renderer("mathml", (mathml.inline, None), (mathml.block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
