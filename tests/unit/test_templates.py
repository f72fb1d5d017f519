"""A host's own templates, by the command line: which file is used, what is wrong with it, and its preview."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.golden_mails import claimed, one
from tests.support.png import png
from tocsin.cli import main
from tocsin.engine.mail.loader import SHIPPED, TemplateFailed, Templates
from tocsin.engine.mail.samples import SampleMails, sample_types
from tocsin.engine.mail.template_check import check

DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDE = (DOCS / "templates.md").read_text("utf-8")
OWN = "notifications/forum/new_reply.html"
REPLLY = "notifications/forum/new_replly.txt"
EXTENDS = '{% extends "notifications/layout.html" %}\n{% block content %}\n'
END = "\n{% endblock %}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "templates"
    made.mkdir()
    return made


def put(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def tocsin(folder: Path | None, *arguments: str, **settings: str) -> Result:
    environ: dict[str, str | None] = {f"TOCSIN_{name}": value for name, value in settings.items()}
    environ["TOCSIN_TEMPLATES_DIR"] = str(folder) if folder else None
    return CliRunner().invoke(main, ["templates", *arguments], env=environ)


def problems(folder: Path, *arguments: str) -> list[str]:
    result = tocsin(folder, "check", *arguments)
    assert result.exit_code == (1 if result.stderr else 0), result.output
    return result.stderr.splitlines()


def html(folder: Path, **changes: Any) -> str:
    return one(claimed(**changes), Templates(folder)).html


# What wins.


def test_a_layout_of_ones_own_is_around_all_mails(folder: Path) -> None:
    put(folder, "notifications/layout.html", "<main>{% block content %}{% endblock %}</main>")
    found = html(folder)
    assert found.startswith("<main>")
    assert "Bob replied" in found


def test_an_override_extends_what_it_overrides(folder: Path) -> None:
    put(
        folder,
        "notifications/layout.html",
        '{% extends "tocsin/notifications/layout.html" %}'
        "{% block footer %}{{ super() }}<p>Mine too</p>{% endblock %}",
    )
    found = html(folder)
    assert "Turn these emails off" in found
    assert found.index("Turn these emails off") < found.index("Mine too")


def test_ours_uses_what_theirs_overrides(folder: Path) -> None:
    put(folder, OWN, '{% extends "tocsin/notifications/email.html" %}')
    put(folder, "notifications/layout.html", "<i>{% block content %}{% endblock %}</i>")
    assert html(folder).startswith("<i>")


def test_a_style_sheet_adds_to_ours_or_takes_its_place(folder: Path) -> None:
    put(
        folder,
        "notifications/email.css",
        '@import "tocsin/notifications/email.css";\n.title { color: #123456 }',
    )
    found = html(folder)
    (style,) = re.findall(r'<h1 class="title"[^>]* style="([^"]*)"', found)
    assert "font-size: 22px" in style
    assert "#123456" in style
    put(folder, "notifications/email.css", ".title { color: #123456 }")
    assert re.search(r'<h1 class="title"[^>]* style="color: #123456;">', html(folder))


def test_an_include_is_taken_from_the_folder(folder: Path) -> None:
    put(folder, OWN, EXTENDS + '{% include "parts/hello.html" %}' + END)
    put(folder, "parts/hello.html", "<p>Hello {{ name }}</p>")
    assert "Hello Alice" in html(folder)
    assert problems(folder) == []


# What is wrong.


WRONG = [
    ("{{ tilte }}", "{own}:3: unknown variable 'tilte' (did you mean 'title'?)"),
    (
        "{% if metadata.get('x') %}{{ tilte }}{% endif %}",
        "{own}:3: unknown variable 'tilte' (did you mean 'title'?)",
    ),
    ("{{ brand.nmae }}", "{own}:3: unknown attribute 'nmae' of brand (did you mean 'name'?)"),
    ("\n{{ title.foo }}", "{own}:4: unknown attribute 'foo'"),
    ("{% if title %}", "{own}:4: Encountered unknown tag 'endblock'"),
    ("{{ title | uper }}", "{own}:3: No filter named 'uper'"),
    ("{{ title", "{own}:4: expected token 'end of print statement'"),
    ("{% include 'parts/no.html' %}", "{own}:3: there is no template 'parts/no.html'"),
    ("{{ ''.__class__ }}", "{own}:3: access to attribute '__class__' of 'str' object is unsafe"),
    ("{{ 1 // 0 }}", "{own}:3: ZeroDivisionError in an expression"),
    (
        "{{ metadata.thread }}",
        "{own}:3: the sample of forum.new_reply has no metadata 'thread': add it to samples.toml",
    ),
    ('<a href="{{ title }}" href="{{ title }}">', "{own}:1: a Jinja tag stands where the CSS can't"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "line"), WRONG)
def test_a_mistake_is_one_line_with_its_place(folder: Path, source: str, line: str) -> None:
    put(folder, OWN, EXTENDS + source + END)
    (found,) = problems(folder)
    assert found.startswith(line.format(own=OWN))


def test_a_template_that_takes_too_long_is_found(folder: Path) -> None:
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    put(folder, OWN, EXTENDS + loops + END)
    found = check(folder, sample_types(), seconds=2)
    assert [each.why for each in found] == ["it takes longer than 2 s"]


def test_words_of_the_wrong_kind_are_found(folder: Path) -> None:
    put(folder, "notifications/forum/new_reply.words.txt", "{% set facts = [1] %}")
    (line,) = problems(folder)
    assert line.startswith("notifications/forum/new_reply.words.txt: facts are pairs of a name")


def test_a_layout_is_checked_with_each_mail_that_it_frames(folder: Path) -> None:
    put(
        folder,
        "notifications/layout.html",
        "{% block content %}{% endblock %}\n{% if mandatory %}{{ event_type }}{% endif %}",
    )
    assert problems(folder) == ["notifications/layout.html:2: unknown variable 'event_type'"]


def test_the_error_of_a_template_that_extends_itself_names_the_cure(folder: Path) -> None:
    put(folder, "notifications/layout.txt", '{% extends "notifications/layout.txt" %}')
    (line,) = problems(folder)
    assert "it includes or extends itself: write tocsin/ before the name" in line


def test_each_problem_has_its_line(folder: Path) -> None:
    put(folder, OWN, EXTENDS + "{{ one }}\n{{ two }}" + END)
    put(folder, "notifications/email.txt", "{{ three }}")
    assert len(problems(folder)) == 3


def test_a_template_for_no_event_type_is_found(folder: Path) -> None:
    put(folder, REPLLY, "{{ title }}")
    put(folder, "notifications/shop/sold.txt", "{{ title }}")
    assert problems(folder) == [
        f"{REPLLY}: there is no event type 'forum.new_replly' (did you mean 'forum.new_reply'?)",
        "notifications/shop/sold.txt: there is no event type 'shop.sold'",
    ]
    catalogue = folder.parent / "catalogue.toml"
    catalogue.write_text(
        '[event_types]\n"shop.sold" = { label = "Sold", channels = ["email"] }\n'
        '"forum.new_replly" = { label = "Reply", channels = ["email"] }'
    )
    assert problems(folder, "--event-types", str(catalogue)) == []


def test_samples_of_ones_own_are_taken(folder: Path) -> None:
    put(folder, OWN, EXTENDS + "{{ metadata.thread }}" + END)
    put(folder, "samples.toml", '["forum.new_reply"]\nmetadata = { thread = "Roses" }')
    assert problems(folder) == []
    put(folder, "samples.toml", '["forum.new_reply"]\nmetdata = { thread = "Roses" }')
    (line,) = problems(folder)
    assert line.endswith("['forum.new_reply'] unknown setting 'metdata' (did you mean 'metadata'?)")


def test_a_wrong_brand_is_found_too(folder: Path) -> None:
    put(folder, "brand.toml", 'accent = "#ffff00"')
    (line,) = problems(folder)
    assert line.startswith("brand.toml:1: accent '#ffff00' has a contrast of 1.1:1 on white")


def test_a_file_that_is_no_text_is_found(folder: Path) -> None:
    (folder / "notifications").mkdir()
    (folder / "notifications/layout.txt").write_bytes(b"\xff\xfe")
    assert problems(folder) == ["notifications/layout.txt: it is not in UTF-8"]


def test_ours_have_no_problem() -> None:
    result = tocsin(None, "check")
    assert result.exit_code == 0
    assert "No problem" in result.stdout


def test_a_folder_that_is_not_there_is_one_line(folder: Path) -> None:
    result = tocsin(folder / "no", "check")
    assert result.exit_code == 1
    assert result.stderr.startswith("tocsin: TOCSIN_TEMPLATES_DIR is no folder")
    assert result.stderr.count("\n") == 1


# At send time.


def test_a_failure_is_reported_without_the_content_of_the_mail(folder: Path) -> None:
    put(folder, OWN, EXTENDS + "{{ title.index('~') }}" + END)
    with pytest.raises(TemplateFailed) as failed:
        html(folder, title="secret")
    assert str(failed.value) == f"{OWN}:3: ValueError in an expression"


def test_changed_templates_are_read_again_where_that_is_set(folder: Path) -> None:
    put(folder, "notifications/email.txt", "one")
    templates, still = Templates(folder, reload=True), Templates(folder)
    assert (still.render(["notifications/email.txt"], {})) == "one"
    assert (templates.render(["notifications/email.txt"], {})) == "one"
    put(folder, "notifications/email.txt", "two, changed")
    assert (still.render(["notifications/email.txt"], {})) == "one"
    assert (templates.render(["notifications/email.txt"], {})) == "two, changed"


# list, copy, preview.


def test_the_list_shows_where_each_comes_from(folder: Path) -> None:
    put(folder, "notifications/layout.html", "x")
    put(folder, OWN, "x")
    found = dict(line.split(maxsplit=1) for line in tocsin(folder, "list").stdout.splitlines())
    assert found["notifications/layout.html"] == "yours, over ours"
    assert found[OWN] == "yours"
    assert found["notifications/email.html"] == "ours"


def test_a_copy_is_one_to_start_from(folder: Path) -> None:
    result = tocsin(folder, "copy", "notifications/email.html", "--as", OWN)
    assert result.stdout.strip() == str(folder / OWN)
    assert (folder / OWN).read_text() == (SHIPPED / "notifications/email.html").read_text()
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["notifications/emial.html"], "did you mean 'notifications/email.html'?"),
        (["../../settings/__init__.py"], "There is no template"),
        (["notifications/email.html", "--as", "../x.html"], "../x.html is not in"),
    ],
)
def test_a_copy_goes_nowhere_else(folder: Path, arguments: list[str], line: str) -> None:
    result = tocsin(folder, "copy", *arguments)
    assert result.exit_code == 1
    assert line in result.stderr


def test_a_copy_overwrites_nothing(folder: Path) -> None:
    put(folder, "notifications/email.html", "mine")
    result = tocsin(folder, "copy", "notifications/email.html")
    assert result.exit_code == 1
    assert (folder / "notifications/email.html").read_text() == "mine"


def test_a_preview_is_the_text_or_files(folder: Path) -> None:
    (folder / "logo.png").write_bytes(png())
    put(folder, "brand.toml", 'name = "Acme"\n[logo]\nsrc = "logo.png"')
    assert "The roses came." in tocsin(folder, "preview", "forum.new_reply").stdout
    out = folder.parent / "out"
    result = tocsin(folder, "preview", "--out", str(out), "--locale", "ar")
    assert len(result.stdout.splitlines()) == len(list(out.glob("*.eml"))) > 20
    page = (out / "digest.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert 'dir="rtl"' in page
    assert "prefers-color-scheme" not in page
    assert page != (out / "digest.dark.html").read_text()
    assert "Content-ID: <logo-" in (out / "digest.eml").read_text()


def test_an_unknown_mail_names_the_nearest(folder: Path) -> None:
    result = tocsin(folder, "preview", "forum.new_replly")
    assert result.stderr.startswith("tocsin: There is no mail 'forum.new_replly'")
    assert "did you mean 'forum.new_reply'?" in result.stderr


# The guide.


def test_the_first_one_of_the_guide_works(folder: Path) -> None:
    (block, *_) = re.findall(r"^```text\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    for name, text in re.findall(r"^templates/(\S+)\n((?:    .*\n)+)", block, re.MULTILINE):
        put(folder, name, re.sub(r"^    ", "", text, flags=re.MULTILINE))
    assert problems(folder) == []
    found = html(folder, metadata={"thread": "Roses & boxes"})
    assert "Hello Alice, there is news in “Roses &amp; boxes”" in found
    assert 'bgcolor="#8a3b12"' in found
    assert "Example Club, 1 High Street, London" in found


def test_the_docs_name_all_that_a_template_knows() -> None:
    mail = (DOCS / "mail.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)[`(]", mail))
    for kind in ("forum.new_reply", "burst", "digest"):
        assert contexts_of(kind) <= named


def contexts_of(kind: str) -> set[str]:
    seen: set[str] = set()

    class Watching(Templates):
        def render(self, names: Sequence[str], context: Mapping[str, Any]) -> str:
            seen.update(context)
            return super().render(names, context)

    SampleMails(Watching(), sample_types(), "a@b.test").mail(kind)
    return seen


# Words.

PO = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "%s"\nmsgstr "%s"\n'


def test_words_of_ones_own_go_before_ours(folder: Path) -> None:
    put(folder, "words/en.po", PO % ("Turn these emails off", "Stop these emails"))
    put(folder, "words/de.po", PO % ("Turn these emails off", "Schluss damit"))
    assert problems(folder) == []
    assert "Stop these emails" in html(folder)
    german = html(folder, locale="de-AT")
    assert "Schluss damit" in german
    assert "Antwort lesen" in german  # ours, where there is none of theirs
    assert "Turn these emails off" in one(claimed()).html


def test_another_language_is_a_file_more(folder: Path) -> None:
    put(folder, "words/fr.po", PO % ("Turn these emails off", "Ne plus recevoir ces mails"))
    found = html(folder, locale="fr-CA")
    assert "Ne plus recevoir ces mails" in found
    assert 'lang="fr"' in found
    (block,) = re.findall(r"^```po\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    put(folder, "words/fr.po", block)
    assert "Stop these emails" in one(claimed(locale="fr"), Templates(folder, reload=True)).html


def test_changed_words_are_read_again(folder: Path) -> None:
    templates = Templates(folder, reload=True)
    for words in ("Stop these emails", "No more of them"):
        put(folder, "words/en.po", PO % ("Turn these emails off", words))
        assert words in one(claimed(), templates).html


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("en.po", PO % ("Open in %(service)s", "To %(servise)s"), "en.po:4: unknown value 'servise'; these words"),
        ("en.po", PO % ("Turn these emails off", "100 % off"), "en.po:4: unknown value '% '; these words have none"),
        ("xx.po", "", "xx.po: it is named after no language"),
        ("en.po", 'msgid "x"\nnonsense "y"', "en.po:2: "),
    ],
)  # fmt: skip
def test_wrong_words_are_found(folder: Path, name: str, text: str, line: str) -> None:
    put(folder, f"words/{name}", text)
    (found,) = problems(folder)
    assert found.startswith(f"words/{line}")
