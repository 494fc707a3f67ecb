"""How Sphinx draws the pages: notebooks as they were executed, formulas as MathML, nothing from a network."""

import html

from docutils import nodes
from latex2mathml.converter import convert

project = "compat_lib"
html_title = "compat_lib"
html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_show_search_summary = False  # a browser lets no page on disk fetch another one
html_show_copyright = html_show_sourcelink = html_copy_source = False
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # its scripts would come from a network
nb_code_prompt_show = "{type}"
nb_code_prompt_hide = "hide {type}"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"  # browsers draw it themselves, where MathJax would be fetched
# Links to source files have no page, and further runs of a notebook are reached from the page of all runs.
suppress_warnings = ["myst.xref_missing", "myst.header", "toc.not_included", "mystnb.unknown_mime_type"]


def formula(node: nodes.math | nodes.math_block, display: str) -> str:
    """A formula as MathML; as its source where it holds something unknown."""
    try:
        return convert(node.astext(), display=display)
    except Exception:  # the converter raises its own and others' errors; the source is still readable
        return f"<code>{html.escape(node.astext())}</code>"


def inline(translator, node: nodes.math) -> None:
    translator.body.append(formula(node, "inline"))
    raise nodes.SkipNode


def block(translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{formula(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
