"""Inlines CSS into a mail template, once per template and not once per mail.

An HTML parser would tear Jinja's tags apart, so each stands in for itself as a placeholder while the
CSS is inlined: a comment where text may stand (also between table rows, where a parser would move
text elsewhere), a plain word inside a tag, a comment, <style> or <title>.
"""

from __future__ import annotations

import re

import css_inline

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MARKUP = re.compile(
    r"<!--.*?-->|<style\b.*?</style>|<title\b.*?</title>|<[^>]*>", re.DOTALL | re.IGNORECASE
)
_WORD = re.compile(r"jinja(\d+)tag")
_PLACEHOLDER = re.compile(r"<!--jinja(\d+)tag-->|jinja(\d+)tag")


def inline_css(source: str, css: str) -> str:
    """The template with the rules of `css` as style attributes; its own <style> stays as it is.

    A tag of Jinja may stand in text and in attribute values; elsewhere it would not survive, which
    raises ValueError.
    """
    tags: list[str] = []

    def put_by(tag: re.Match[str]) -> str:
        tags.append(tag[0])
        return f"jinja{len(tags) - 1}tag"

    html = _as_comments(_JINJA.sub(put_by, source))
    if re.match(r"\s*<!doctype", html, re.IGNORECASE):
        inliner = css_inline.CSSInliner(
            inline_style_tags=False,
            keep_style_tags=True,
            load_remote_stylesheets=False,
            extra_css=css,
        )
        inlined = inliner.inline(html)
    else:
        inlined = css_inline.inline_fragment(html, css, load_remote_stylesheets=False)
    found = [int(comment or word) for comment, word in _PLACEHOLDER.findall(inlined)]
    if sorted(found) != list(range(len(tags))):  # sorted: attributes may change places
        raise ValueError("a Jinja tag stands where the CSS can't be inlined around it")
    return _PLACEHOLDER.sub(lambda match: tags[int(match[1] or match[2])], inlined)


def _as_comments(html: str) -> str:
    """Makes comments of the placeholders outside all markup."""
    pieces: list[str] = []
    end = 0
    for markup in _MARKUP.finditer(html):
        pieces += (_WORD.sub(r"<!--\g<0>-->", html[end : markup.start()]), markup[0])
        end = markup.end()
    return "".join((*pieces, _WORD.sub(r"<!--\g<0>-->", html[end:])))
