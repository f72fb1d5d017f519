"""Templates that are not ours: what they can't reach, and how much they may cost."""

from __future__ import annotations

import time

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from tocsin.engine import sandbox
from tocsin.engine.sandbox import Sandbox, TemplateTooMuch, rendered, said


def write(source: str, **context: object) -> str:
    return rendered(Sandbox().from_string(source), context)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ().__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x.append(1) }}{{ x.__class__ }}",
        "{{ '{0.__class__}'.format(x) }}",
    ],
)
def test_nothing_outside_is_reached(source: str) -> None:
    with pytest.raises(SecurityError):
        write(source, x=[])


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        write("{{ titel }}", title="x")


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% set x %}{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}{% endset %}",
        "{% for a in range(9999) %}{{ text }}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 10 ** 10 ** 9 }}",
    ],
)
def test_a_template_that_is_too_much_ends_soon(source: str) -> None:
    started = time.thread_time()
    with pytest.raises(TemplateTooMuch):
        write(source, text="x" * 10_000)
    assert time.thread_time() - started < 2 * sandbox.MOST_SECONDS


def test_slow_turns_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.05)
    with pytest.raises(TemplateTooMuch, match="of work"):
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
