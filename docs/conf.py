"""The site: ``make site`` builds it from the stored outputs, without a network.

The source folder is the project itself, so that the same link works on GitHub, in JupyterLab and here.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# made by `make viewer`; where there is no npm, the site goes without
VIEWER = ROOT / "build" / "viewer"
with_viewer = (VIEWER / "index.html").is_file()

project = "From GeoTIFFs to a datacube"
language = "en_US"
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "solutions/*.ipynb",
    "data/README.md",
    "benchmarks/README.md",
]
# what Sphinx does not have to walk through
exclude_patterns = [
    ".*",
    "build",
    "viewer",
    "data/2*",
    "notebooks/scratch",
    "solutions/scratch",
    "**/.ipynb_checkpoints",
]
extensions = ["myst_nb"]

nb_execution_mode = "off"
nb_custom_formats = {".ipynb": ["tools.pages.read", {}, False]}
nb_ipywidgets_js = {}  # they would come from another host
myst_enable_extensions = ["linkify"]
myst_linkify_fuzzy_links = False  # `tiles.py` is not an address
myst_heading_anchors = 3
myst_heading_slug_func = "tools.pages.slug"
smartquotes = False

html_theme = "sphinx_book_theme"
html_title = "GLAD datacube workshop"
templates_path = ["_templates"]
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["print.js"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system
html_extra_path = ["_root"]  # index.html, which leads to docs/index.html
html_theme_options = {
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_bar_text": "Search the lessons",
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search field is in the sidebar
    "footer_content_items": [],
    "primary_sidebar_end": ["viewer.html"] if with_viewer else [],  # no advertisements
}


def lead_links_upwards(app, path, docname, text):
    """Make the links of the README work in ``docs/``, whose pages include it."""
    text[0] = re.sub(r"\]\((?!https?:|#)", "](../", text[0])


def lead_to_the_first_page(app, docname, text):
    """Point links to the README at the page that includes most of it."""
    text[0] = text[0].replace("](../README.md", "](../docs/index.md")


def add_the_viewer(app, exception):
    """Put the viewer below the site, and the store it shows into the same folder."""
    if with_viewer and not exception:
        from tools import window

        folder = Path(app.outdir) / "viewer"
        shutil.rmtree(folder, ignore_errors=True)
        window.write(folder)
        shutil.copytree(VIEWER, folder, dirs_exist_ok=True)


def setup(app):
    """Connect the above."""
    app.connect("include-read", lead_links_upwards)
    app.connect("source-read", lead_to_the_first_page)
    app.connect("build-finished", add_the_viewer)
