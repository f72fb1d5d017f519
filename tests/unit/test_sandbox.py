"""Templates that are not ours: what they can't reach, and how much they may cost."""

from __future__ import annotations

import time

import pytest
from jinja2 import DictLoader, UndefinedError
from jinja2.exceptions import SecurityError

from tocsin.engine.mail import sandbox
from tocsin.engine.mail.sandbox import Sandbox, TemplateTooMuch, rendered, said

OTHERS = {
    "again.html": '{% include "again.html" %}{% include "again.html" %}',
    "text.txt": "x" * 100_000,
}


def write(source: str, **context: object) -> str:
    return rendered(Sandbox(loader=DictLoader(OTHERS)).from_string(source), context)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ().__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ 'x'.ljust(9) }}",
        "{{ '{0.__class__}'.format(x) }}",
    ],
)
def test_nothing_outside_is_reached(source: str) -> None:
    with pytest.raises(SecurityError):
        write(source, x=[])


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        write("{{ titel }}", title="x")


NESTED = (
    "{%% set n = namespace(x=1) %%}{%% for a in range(60) %%}{%% set n.x = %s %%}{%% endfor %%}"
)
BOMBS = {
    "loop in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "that writes": "{% for a in range(99999) %}{% for b in range(9999) %}xyz{% endfor %}{% endfor %}",
    "filtered": "{% for a in range(9999) %}{% for b in range(9999) if false %}{% endfor %}{% endfor %}",
    "captured": "{% set x %}{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
    "doubled": "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "added": "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "block set": "{% set n = namespace(x='xx') %}{% for a in range(99) %}"
    "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "nested": NESTED % "[n.x, n.x]" + "{{ n.x }}",
    "nested dicts": NESTED % "{1: n.x, 2: n.x}",
    "nested keys": NESTED % "(n.x, n.x)" + "{{ {n.x: 1} }}",
    "nested calls": NESTED % "dict(a=n.x, b=n.x)",
    "nested by a filter": NESTED % "[1] | batch(9, n.x) | list",
    "wrapped": "{% for a in range(99) %}{% set b = ('x ' * 200000) | wordwrap(1) %}{% endfor %}",
    "one long word": "{{ ('x' * 499999) | wordwrap(1) }}",
    "multiplied": "{{ 'x' * 10000000000 }}",
    "a list": "{{ [1] * 10000000000 }}",
    "a power": "{{ 10 ** 100000000 }}",
    "squares": "{% set n = namespace(x=9) %}{% for a in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "center": "{{ 'x' | center(10000000000) }}",
    "batch": "{{ [1] | batch(10000000000, 1) | list }}",
    "slice": "{{ [1] | slice(10000000000) | list }}",
    "indent": "{{ 'x' | indent(10000000000, first=true) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "percent of arguments": "{{ '%*d' % (10000000000, 1) }}",
    "format": "{{ '{:10000000000}'.format(1) }}",
    "format of arguments": "{{ '{:{}}'.format(1, 10000000000) }}",
    "format filter": "{{ '%10000000000d' | format(1) }}",
    "replace": "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
    "replace filter": "{{ ('x' * 99999) | replace('x', 'y' * 99999) }}",
    "join": "{{ ('x' * 99999).join(range(99999) | map('string')) }}",
    "join filter": "{{ range(99999) | join('x' * 99999) }}",
    "macro": "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n }}{% endmacro %}{{ m(60) }}",
    "recursive": "{% for x in [1] recursive %}{{ loop(range(9999)) }}{% endfor %}",
    "included": "{% for a in range(9999) %}{% include 'text.txt' %}{% endfor %}",
    "filters": "{% for a in range(9999) %}{% set b = range(99999) | list | sort | list %}{% endfor %}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_soon_and_small(bomb: str) -> None:
    started = time.thread_time()
    with pytest.raises((TemplateTooMuch, RecursionError)):
        write(bomb)
    assert time.thread_time() - started < 2 * sandbox.MOST_SECONDS


def test_a_template_that_includes_itself_ends_soon() -> None:
    started = time.thread_time()
    with pytest.raises((TemplateTooMuch, RecursionError)):
        write('{% include "again.html" %}')
    assert time.thread_time() - started < 2 * sandbox.MOST_SECONDS


def test_slow_turns_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.05)
    with pytest.raises(TemplateTooMuch, match="too long"):
        write("{% for a in range(99999) %}{% set b = range(9999) | list %}{% endfor %}")


def test_a_macro_without_end_is_an_error() -> None:
    with pytest.raises(RecursionError):
        write("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")


def test_loops_know_where_they_are() -> None:
    source = "{% for x in xs %}{{ loop.index }}/{{ loop.length }}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}"
    assert write(source, xs=["<", "b"]) == "1/2&lt;,2/2b"
    nested = "{% for x in xs recursive %}{{ x.n }}{{ loop(x.xs) if x.xs }}{% endfor %}"
    assert write(nested, xs=[{"n": 1, "xs": [{"n": 2, "xs": []}]}]) == "12"
    assert (
        write("{% for x in [] %}{% else %}none{% endfor %}{{ 6 * 7 }}{{ 'ab' * 2 }}")
        == "none42abab"
    )


def test_what_a_template_sets_is_said() -> None:
    template = Sandbox().from_string("{% if x %}{% set a = x %}{% endif %}{% set _b = 1 %}")
    assert said(template, {"x": "<"}) == {"a": "<"}


def test_apps_may_translate_with_trans_too() -> None:
    source = "{% trans name=n %}Hi {{ name }}{% endtrans %}"
    assert write(source, n="<", gettext=lambda words, **values: words % values) == "Hi &lt;"


def test_what_mails_do_is_let_through() -> None:
    source = (
        "{% for line in body.split('\\n') %}{{ loop.index }}/{{ loop.length }} {{ line|upper }}\n{% endfor %}"
        "{{ '%s: %05.2f' | format('a', 1.5) }} {{ '{:,} {name}'.format(12000000, name='b') }} "
        "{{ items | join(', ') }} {{ 'a-b' | replace('-', '+') }} {{ 3 * 4 + 2 ** 8 }} "
        "{{ 'x' ~ 1 }} {{ 'ab' | center(4) }}"
    )
    text = write(source, body="one\ntwo", items=["<c>", "d"])
    assert text == ("1/2 ONE\n2/2 TWO\na: 01.50 12,000,000 b &lt;c&gt;, d a+b 268 x1  ab ")


def test_a_long_body_of_short_lines_is_let_through() -> None:
    source = "{% for line in lines %}{{ line }}{% if not loop.last %}<br>{% endif %}{% endfor %}"
    assert len(write(source, lines=["x"] * 50_000)) == 50_000 + 4 * 49_999
