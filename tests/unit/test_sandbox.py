"""Templates of host apps: what the sandbox refuses, and what it allows."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from tocsin.engine.mail.sandbox import Sandbox, exported_variables, render_template


def write(source: str, **context: object) -> str:
    return render_template(Sandbox().from_string(source), context)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ().__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ '{0.__class__}'.format(x) }}",
    ],
)
def test_nothing_outside_is_reached(source: str) -> None:
    with pytest.raises(SecurityError):
        write(source, x=[])


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        write("{{ titel }}", title="x")


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


def test_what_a_template_sets_is_returned() -> None:
    template = Sandbox().from_string("{% if x %}{% set a = x %}{% endif %}{% set _b = 1 %}")
    assert exported_variables(template, {"x": "<"}) == {"a": "<"}


def test_trans_translates_too() -> None:
    source = "{% trans name=n %}Hi {{ name }}{% endtrans %}"
    assert write(source, n="<", gettext=lambda words, **values: words % values) == "Hi &lt;"


def test_templates_may_compute() -> None:
    source = (
        "{% for line in body.split('\\n') %}{{ loop.index }}/{{ loop.length }} {{ line|upper }}\n{% endfor %}"
        "{{ '%s: %05.2f' | format('a', 1.5) }} {{ '{:,} {name}'.format(12000000, name='b') }} "
        "{{ items | join(', ') }} {{ 'a-b' | replace('-', '+') }} {{ 3 * 4 + 2 ** 8 }} "
        "{{ 'x' ~ 1 }} {{ 'ab' | center(4) }}"
    )
    text = write(source, body="one\ntwo", items=["<c>", "d"])
    assert text == ("1/2 ONE\n2/2 TWO\na: 01.50 12,000,000 b &lt;c&gt;, d a+b 268 x1  ab ")
