"""Sphinx's configuration; the version comes from the command line."""

from pathlib import Path

_HERE = Path(__file__).parent

project = "Tocsin"
author = "The contributors of Tocsin"
language = "en"
root_doc = "index"
extensions = ["myst_parser"]
smartquotes = False
maximum_signature_line_length = 80
suppress_warnings = [
    "misc.highlighting_failure",  # examples with … in place of what is left out
]

myst_heading_anchors = 6
myst_url_schemes = ("http", "https", "mailto")

html_theme = "furo"
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
html_title = "Tocsin"
html_static_path = [str(_HERE / "static")]
templates_path = [str(_HERE / "templates")]
html_favicon = str(_HERE / "static" / "favicon.svg")
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False  # the search has all names
html_show_sourcelink = False
html_show_copyright = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "versions.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
pygments_style = "a11y-light"
pygments_dark_style = "github-dark-high-contrast"
