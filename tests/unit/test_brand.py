"""What a host's brand.toml changes in mails, and what is wrong with one, in a line."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.golden_mails import LINKS, claimed
from tests.support.png import png
from tocsin.engine.actors import email_mime as mime
from tocsin.engine.mail.brand import contrast, read_brand
from tocsin.engine.mail.loader import TemplateFailed, Templates
from tocsin.engine.mail.render import mail_renderer
from tocsin.engine.model import Mail


def rendered(folder: Path) -> Mail:
    render = mail_renderer(LINKS, "Acme <hello@acme.test>", Templates(folder))
    mail = render([claimed()], ()).content
    assert isinstance(mail, Mail)
    return mail


def write(folder: Path, text: str) -> Path:
    (folder / "brand.toml").write_text(text)
    return folder


def test_name_colour_footer_and_reply_address_are_the_hosts(tmp_path: Path) -> None:
    write(
        tmp_path,
        'name = "Acme Club"\naccent = "#8a3b12"\nreply_to = "help@acme.test"\n'
        'footer = """\nAcme <Ltd>\n1 High Street, London\n"""',
    )
    mail = rendered(tmp_path)
    assert "Acme Club" in mail.html
    assert mail.text.endswith("Acme <Ltd>\n1 High Street, London\n")
    assert "Acme &lt;Ltd&gt;</p>" in mail.html
    button = re.search(r'<a class="button"[^>]*style="([^"]*)"', mail.html)
    assert button is not None
    assert "background-color: #8a3b12" in button[1]
    assert "color: #ffffff" in button[1]
    assert 'bgcolor="#8a3b12"' in mail.html
    assert ("Reply-To", "help@acme.test") in mail.headers


def test_the_dark_accent_is_light_enough_by_itself(tmp_path: Path) -> None:
    html = rendered(write(tmp_path, 'accent = "#102040"')).html
    found = re.findall(r"\.item-link, \.more-link, \.body a \{ color: (#\w+) !important", html)
    assert contrast(found[-1], "#1e2128") >= 4.5
    assert found[0] == "#8fb0ff"  # the later rule wins


def test_a_logo_travels_with_the_mail(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(png())
    write(tmp_path, '[logo]\nsrc = "logo.png"\nalt = "Acme"\nwidth = 120')
    mail = rendered(tmp_path)
    message = message_from_bytes(mime.draft(mail, sender="a@b.test"), policy=policy.default)
    assert isinstance(message, EmailMessage)
    parts = [part.get_content_type() for part in message.walk()]
    assert parts == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ]
    *_, image = message.walk()
    assert image.get_payload(decode=True) == png()
    assert f'src="cid:{image["Content-ID"].strip("<>")}"' in mail.html
    assert 'alt="Acme"' in mail.html
    assert 'width="120"' in mail.html
    assert not any(part.defects for part in message.walk())


def test_a_logo_from_the_web_is_a_link_alone(tmp_path: Path) -> None:
    text = 'name = "Acme"\n[logo]\nsrc = "https://acme.test/logo.png"'
    mail = rendered(write(tmp_path, text))
    assert 'src="https://acme.test/logo.png"' in mail.html
    assert 'alt="Acme"' in mail.html
    assert mail.images == ()


def test_without_the_file_nothing_changes(tmp_path: Path) -> None:
    assert rendered(tmp_path).html.count("<img") == 0
    assert read_brand(tmp_path).css == ""


WRONG = [
    ('nmae = "x"', "brand.toml:1: unknown setting 'nmae' (did you mean 'name'?)"),
    ('name = "x"\n[logo]\nscr = "x"', "brand.toml:3: unknown setting 'scr' (did you mean 'src'?)"),
    ('name = "x"\naccent = ', "brand.toml:2: Invalid value"),
    ("name = 1", "brand.toml:1: Expected `str | null`, got `int`: name"),
    ('accent = "blue"', "brand.toml:1: accent 'blue' is not a colour such as #1d4ed8"),
    (
        'accent = "#ffcc00"',
        (
            "brand.toml:1: accent '#ffcc00' has a contrast of 1.5:1 on white (#ffffff), "
            "and links need 4.5:1: take a darker one"
        ),
    ),
    (
        'accent_dark = "#102040"',
        (
            "brand.toml:1: accent_dark '#102040' has a contrast of 1.0:1 on the dark card (#1e2128), "
            "and links need 4.5:1: take a lighter one"
        ),
    ),
    ('[logo]\nsrc = "https://x.test/l.png"', "brand.toml:1: logo has no alt text: describe the picture in it"),
    (
        'name = "x"\n[logo]\nsrc = "http://x.test/l.png"',
        "brand.toml:3: src 'http://x.test/l.png' is neither an https address nor a file of this folder",
    ),
    (
        'name = "x"\n[logo]\nsrc = "../../etc/passwd"',
        "brand.toml:3: src '../../etc/passwd' is neither an https address nor a file of this folder",
    ),
    (
        'name = "x"\nlogo = { src = "gone.png" }',
        "brand.toml:2: src 'gone.png' can't be read: No such file or directory",
    ),
    (
        'name = "x"\nlogo = { src = "logo.svg" }',
        "brand.toml:2: src 'logo.svg' is not a PNG, JPEG or GIF, the formats that mail programs show",
    ),
    (
        'name = "x"\nlogo = { src = "large.png" }',
        "brand.toml:2: src 'large.png' has 20,008 bytes: 20,000 at most travel in each mail",
    ),
    ('reply_to = "help"', "brand.toml:1: reply_to 'help' is not an address such as help@example.com"),
    ('name = "a\\nb"', "brand.toml:1: name is empty, or has more than one line"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), WRONG)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20_000))
    with pytest.raises(TemplateFailed) as refused:
        rendered(write(tmp_path, text))
    assert str(refused.value) == line


@pytest.mark.parametrize(("colour", "known"), [("#000000", 21), ("#777777", 4.48), ("#595959", 7)])
def test_contrast_is_that_of_the_standard(colour: str, known: float) -> None:
    assert contrast(colour, "#ffffff") == pytest.approx(known, abs=0.01)
