"""TOCSIN_… settings: read once, and a wrong one stops the start with one line that names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.keys import PEM, PRIVATE_PEM
from tocsin.settings import Settings, SettingsError, read_settings
from tocsin.settings.addresses import SmtpServer
from tocsin.settings.keys import new_vapid_key

SECRET = "0123456789abcdef0123456789abcdef"


def read(**values: str) -> Settings:
    return read_settings({f"TOCSIN_{name}": value for name, value in values.items()})


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = read()

    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 8000, Path(".tocsin"))
    assert settings.email_from == "notifications@localhost"
    assert settings.jwt_algorithms == ()
    assert settings.unknown == ()


def test_an_empty_value_is_no_value() -> None:
    assert read(PORT="", PUBLIC_URL=" ", JWT_SECRET="") == read()


def test_origins_are_as_browsers_write_them() -> None:
    origins = read(
        ALLOWED_ORIGINS="https://App.example.com:443, http://localhost:3000"
    ).allowed_origins

    assert origins == ("https://app.example.com", "http://localhost:3000")


def test_the_pages_of_a_phone_app_have_an_origin_too() -> None:
    origins = read(ALLOWED_ORIGINS="capacitor://localhost,https://localhost").allowed_origins

    assert origins == ("capacitor://localhost", "https://localhost")


WRONG = [
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("PORT", "-1"),
    ("PORT", "١"),
    ("HOST", "http://localhost"),
    ("DATA_DIR", __file__),
    ("DATABASE_URL", "mysql://root@localhost/app"),
    ("DATABASE_URL", "postgresql://u:p%@h/d"),
    ("DATABASE_URL", "host=localhost nonsense"),
    ("SIGN_IN_URL", "javascript:alert(1)"),
    ("SIGN_IN_URL", "//example.com/login"),
    ("SIGN_IN_URL", "login"),
    ("PUBLIC_URL", "notify.example.com"),
    ("PUBLIC_URL", "/notify"),
    ("PUBLIC_URL", "ftp://example.com"),
    ("PUBLIC_URL", "https://example.com/?a=1"),
    ("PUBLIC_URL", "https://user@example.com"),
    ("PUBLIC_URL", "https://example.com:99999"),
    ("ALLOWED_ORIGINS", "*"),
    ("ALLOWED_ORIGINS", "null"),
    ("ALLOWED_ORIGINS", "app.example.com"),
    ("ALLOWED_ORIGINS", "https://*.example.com"),
    ("ALLOWED_ORIGINS", "https://app.example.com/"),
    ("ALLOWED_ORIGINS", "https://me@app.example.com"),
    ("ALLOWED_ORIGINS", "https://app.example.com:x"),
    ("ALLOWED_ORIGINS", "https://a.example, ftp://b.example"),
    ("EMAIL_FROM", "nobody"),
    ("EMAIL_FROM", "a@b\nBcc: c@d"),
    ("EMAIL_FROM", "Example ‹notifications@example.com›"),
    ("EMAIL_FROM", "‹notifications@example.com›"),
    ("EMAIL_FROM", "a@example.com, b@example.com"),
    ("EMAIL_FROM", "Example <a@example.com> <b@example.com>"),
    ("EMAIL_FROM", "Example <jörg@example.com>"),
    ("EMAIL_FROM", "Example <notifications@>"),
    ("EMAIL_FROM", "Example <notifications>"),
    ("EMAIL_FROM", "Example\r\nBcc: x <a@example.com>"),
    ("EMAIL_FROM", "Example\u2028 <a@example.com>"),
    ("EMAIL_FROM", "a@example..com"),
    ("EMAIL_FROM", "a@example.com."),
    ("EMAIL_FROM", "a@-example.com"),
    ("EMAIL_FROM", "a@127.0.0.1"),
    ("EMAIL_FROM", "a..b@example.com"),
    ("EMAIL_FROM", f"{'a' * 65}@example.com"),
    ("EMAIL_FROM", f"a@{'b' * 64}.com"),
    ("EMAIL_FROM", f"{'N' * 201} <a@example.com>"),
    ("SMTP_URL", "mail.example.com"),
    ("SMTP_URL", "smtp://"),
    ("SMTP_URL", "smtp://host:0"),
    ("SMTP_URL", "smtp://host:x"),
    ("SMTP_URL", "smtp://[host"),
    ("SMTP_URL", "smtp://a/b@host"),
    ("SMTP_URL", "smtp://host?starttls=maybe"),
    ("SMTP_URL", "smtp://host?startls=always"),
    ("SMTP_URL", "smtps://host?starttls=always"),
    ("SMTP_URL", "smtp://u:a%0d%0ab@host"),
    ("RETENTION_DAYS", "0"),
    ("RETENTION_DAYS", "ninety"),
    ("METRICS_TOKEN", "short"),
    ("METRICS_TOKEN", "/run/secrets/a-file-that-is-not-there"),
    ("METRICS_TOKEN", "a token with blanks in it"),
    ("METRICS_PORT", "0"),
    ("BADGE_PUSHES", "sometimes"),
    ("TEMPLATES_DIR", "/nowhere/templates"),
    ("TEMPLATES_DIR", __file__),
    ("TEMPLATES_RELOAD", "always"),
    ("LOG_LEVEL", "LOUD"),
    ("LOG_FORMAT", "xml"),
    ("CA_FILE", "/nowhere/ca.pem"),
    ("CA_FILE", __file__),
    ("JWT_SECRET", "short"),
    ("JWT_SECRET", "/run/secrets/a-file-that-is-not-there"),
    ("JWT_PUBLIC_KEY", "/nowhere/key.pem"),
    ("JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----\nbm8=\n-----END PUBLIC KEY-----"),
    ("JWT_PUBLIC_KEY", PRIVATE_PEM),
    ("JWKS_URL", "login.example.com"),
    ("JWKS_URL", "https://[::1"),
    ("JWKS_URL", "http://login.example.com/jwks.json"),
    ("JWKS_URL", "http://127.0.0.1.example.com/jwks.json"),
    ("JWT_ALGORITHMS", "none"),
    ("JWT_ALGORITHMS", "HS256,None"),
    ("JWT_ALGORITHMS", "HS256 RS256"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{name: value})

    line = str(caught.value)
    assert line.startswith(f"TOCSIN_{name}")
    assert "\n" not in line
    assert len(line) < 200


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://localhost", SmtpServer(host="localhost", port=25)),
        ("smtp://mail.example.com:587/", SmtpServer(host="mail.example.com", port=587)),
        (
            "smtps://bob%40example.com:p%3A%2F%20@mail.example.com",
            SmtpServer(
                host="mail.example.com",
                port=465,
                username="bob@example.com",
                password="p:/ ",
                tls=True,
                starttls="never",
            ),
        ),
        ("smtp://[::1]:2525?starttls=always", SmtpServer(host="::1", port=2525, starttls="always")),
        ("smtp://h?starttls=never", SmtpServer(host="h", port=25, starttls="never")),
    ],
)
def test_an_smtp_url_is_parsed(url: str, server: SmtpServer) -> None:
    assert read(SMTP_URL=url).smtp_servers == (server,)


@pytest.mark.parametrize("between", [" ", ", ", ",", "\n"])
def test_several_mail_servers_are_separated_by_blanks_or_commas(between: str) -> None:
    urls = ["smtp://a:p,1@one.example.com", "smtps://two.example.com"]
    found = read(SMTP_URL=between.join(urls)).smtp_servers
    assert [(each.address, each.password) for each in found] == [
        ("one.example.com:25", "p,1"),
        ("two.example.com:465", None),
    ]


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        ("smtp://a.example.com, b.example.com", "each with its smtp://"),
        ("smtp://a.example.com;smtp://b.example.com", "each with its smtp://"),
        ("smtp://a.example.com smtp://a.example.com", "name each server once"),
    ],
)
def test_mail_servers_that_are_not_separated_have_their_cure(value: str, cure: str) -> None:
    with pytest.raises(SettingsError, match=cure):
        read(SMTP_URL=value)


@pytest.mark.parametrize(
    ("url", "kept", "sender"),
    [
        (
            "https://notify.example.com/",
            "https://notify.example.com",
            "notifications@notify.example.com",
        ),
        ("http://example.com:8080/n/", "http://example.com:8080/n", "notifications@example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "notifications@localhost"),
        ("http://[::1]:8000", "http://[::1]:8000", "notifications@localhost"),
    ],
)
def test_the_public_url_loses_its_last_slash_and_names_the_sender(
    url: str, kept: str, sender: str
) -> None:
    settings = read(PUBLIC_URL=url)

    assert (settings.public_url, settings.email_from) == (kept, sender)


@pytest.mark.parametrize(
    "sender", ["a@example.com", "Example <a@example.com>", '"A, B" <a@example.com>']
)
def test_a_sender_may_have_a_name(sender: str) -> None:
    assert read(EMAIL_FROM=sender).email_from == sender


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        ({"JWT_SECRET": SECRET}, ("HS256",)),
        ({"JWT_PUBLIC_KEY": PEM}, ("RS256", "ES256")),
        ({"JWKS_URL": "https://login.example.com/jwks.json"}, ("RS256", "ES256")),
        ({"JWT_SECRET": SECRET, "JWT_ALGORITHMS": "HS512, HS256"}, ("HS512", "HS256")),
        ({"JWT_PUBLIC_KEY": PEM, "JWT_ALGORITHMS": "ES384"}, ("ES384",)),
    ],
)
def test_the_algorithms_follow_from_the_key(
    key: dict[str, str], algorithms: tuple[str, ...]
) -> None:
    assert read(**key).jwt_algorithms == algorithms


@pytest.mark.parametrize(
    "key",
    [
        {"JWT_PUBLIC_KEY": PEM, "JWT_ALGORITHMS": "HS256"},
        {"JWKS_URL": "https://login.example.com/jwks.json", "JWT_ALGORITHMS": "ES256,HS256"},
        {"JWT_SECRET": SECRET, "JWT_ALGORITHMS": "RS256"},
    ],
)
def test_a_key_is_never_used_with_another_kinds_algorithm(key: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="TOCSIN_JWT_ALGORITHMS"):
        read(**key)


def test_two_kinds_of_key_are_refused() -> None:
    with pytest.raises(SettingsError, match="TOCSIN_JWKS_URL and TOCSIN_JWT_SECRET"):
        read(JWT_SECRET=SECRET, JWKS_URL="https://login.example.com/jwks.json")


def test_a_key_is_a_path_or_the_content_itself(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "key.pem").write_text(PEM)

    assert read(JWT_SECRET=str(tmp_path / "secret")).jwt_secret == SECRET
    assert read(JWT_SECRET=SECRET).jwt_secret == SECRET
    by_path, by_content = read(JWT_PUBLIC_KEY=str(tmp_path / "key.pem")), read(JWT_PUBLIC_KEY=PEM)
    assert by_path.jwt_public_key == by_content.jwt_public_key == PEM.strip()
    assert read(JWT_PUBLIC_KEY=PEM.strip().replace("\n", "\\n")) == by_content


def test_an_unknown_variable_is_returned_to_be_warned_of() -> None:
    assert read(PROT="8000", PARENT_FD="3", DERIVED="", SMTP="x").unknown == (
        "TOCSIN_DERIVED",
        "TOCSIN_PROT",
        "TOCSIN_SMTP",
    )


def test_no_secret_is_shown() -> None:
    shown = repr(
        read(
            JWT_SECRET=SECRET,
            SMTP_URL="smtp://bob:hunter2@mail.example.com",
            DATABASE_URL="postgresql://bob:hunter2@localhost/app",
        )
    )

    assert SECRET not in shown
    assert "hunter2" not in shown
    assert "mail.example.com" in shown


def test_a_wrong_database_url_does_not_show_its_password() -> None:
    with pytest.raises(SettingsError) as caught:
        read(DATABASE_URL="postgresql://bob:hunter2%@localhost/app")

    assert "hunter2" not in str(caught.value)


APNS = {
    "APNS_KEY": PRIVATE_PEM,
    "APNS_KEY_ID": "ABC123DEFG",
    "APNS_TEAM_ID": "DEF123GHIJ",
    "APNS_TOPIC": "com.example.app",
}


def test_apns_takes_its_four_settings_and_the_key_as_path_or_content(tmp_path: Path) -> None:
    file = tmp_path / "AuthKey.p8"
    file.write_text(PRIVATE_PEM)
    by_content, by_path = read(**APNS).apns, read(**APNS | {"APNS_KEY": str(file)}).apns
    assert by_content == by_path
    assert by_content is not None
    assert by_content.topic == "com.example.app"
    assert "PRIVATE" not in repr(read(**APNS))
    assert read().apns is None


@pytest.mark.parametrize("missing", list(APNS))
def test_apns_without_one_of_the_four_names_it(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"TOCSIN_{missing} is not set"):
        read(**{name: value for name, value in APNS.items() if name != missing})


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"APNS_KEY": "/nowhere.p8"}, "TOCSIN_APNS_KEY is neither a .p8 key nor a file"),
        ({"APNS_KEY": PEM}, "TOCSIN_APNS_KEY is not a private key"),
        ({"APNS_URL": "push.apple.com"}, "TOCSIN_APNS_URL"),
    ],
)
def test_a_wrong_apns_setting_is_named(wrong: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        read(**APNS | wrong)


def test_a_vapid_key_is_base64url_or_a_pem_as_content_or_path(tmp_path: Path) -> None:
    key = new_vapid_key()
    file = tmp_path / "vapid.key"
    file.write_text(f"{key}\n")
    found = read(VAPID_KEY=key, EMAIL_FROM="Example <push@example.com>").vapid
    assert found is not None
    assert (found.private, found.subject) == (key, "mailto:push@example.com")
    by_path = read(VAPID_KEY=str(file), VAPID_SUBJECT="https://example.com/contact").vapid
    assert by_path is not None
    assert (by_path.public, by_path.subject) == (found.public, "https://example.com/contact")
    assert read(VAPID_KEY=PRIVATE_PEM).vapid is not None
    assert key not in repr(read(VAPID_KEY=key)) + repr(found)
    assert read().vapid is None


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"VAPID_KEY": "/nowhere.key"}, "TOCSIN_VAPID_KEY is neither a P-256 private key nor"),
        ({"VAPID_KEY": PEM}, "TOCSIN_VAPID_KEY is neither a P-256 private key nor"),
        ({"VAPID_KEY": "A" * 43}, "TOCSIN_VAPID_KEY is neither a P-256 private key nor"),
        ({"VAPID_SUBJECT": "mailto:a@example.com"}, "TOCSIN_VAPID_KEY is not set, but"),
        ({"VAPID_KEY": new_vapid_key(), "VAPID_SUBJECT": "Bob"}, "TOCSIN_VAPID_SUBJECT must be"),
        ({"VAPID_KEY": new_vapid_key(), "VAPID_SUBJECT": "mailto:"}, "TOCSIN_VAPID_SUBJECT must"),
    ],
)
def test_a_wrong_vapid_setting_is_named(wrong: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        read(**wrong)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/nowhere.json", "neither a service account's JSON nor a file"),
        ("{}", "has no project_id"),
        ("{", "TOCSIN_FCM_SERVICE_ACCOUNT"),
    ],
)
def test_a_wrong_service_account_is_named(text: str, line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        read(FCM_SERVICE_ACCOUNT=text)


def test_rate_limits_change_those_that_they_name() -> None:
    found = {
        each.name: (each.requests, each.seconds)
        for each in read_settings(
            {"TOCSIN_RATE_LIMITS": "reads=20/1s, tickets=off writes=5/2h"}
        ).rate_limits
    }
    assert found["reads"] == (20, 1)
    assert found["writes"] == (5, 7200)
    assert found["sign-in"] == (30, 60)
    assert "tickets" not in found
    assert read_settings({"TOCSIN_RATE_LIMITS": "off"}).rate_limits == ()


def test_send_rates_are_messages_a_second_of_each_channel() -> None:
    settings = read_settings({"TOCSIN_SEND_RATES": "email=14/s, push=500/1s web_push=90/1m"})
    assert dict(settings.send_rates) == {"email": 14.0, "push": 500.0, "web_push": 1.5}
    assert read_settings({"TOCSIN_SEND_RATES": "email=1800/h"}).send_rates == (("email", 0.5),)
    assert not read_settings({}).send_rates


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("RATE_LIMITS", "read=1/1m", "did you mean reads?"),
        ("RATE_LIMITS", "reads", "such as 300/1m, or off"),
        ("RATE_LIMITS", "reads=0/1m", "such as 300/1m, or off"),
        ("RATE_LIMITS", "reads=5/2d", "such as 300/1m, or off"),
        ("RATE_LIMITS", "reads=5/48h", "a time of a day at most"),
        ("SEND_RATES", "mail=14/s", "(did you mean email?)"),
        ("SEND_RATES", "webhook=14/s", "no channel that may have a rate: email, push, web_push"),
        ("SEND_RATES", "email=14", "such as 14/s or 500/1h"),
        ("SEND_RATES", "email=0/s", "such as 14/s or 500/1h"),
        ("SEND_RATES", "email=14/s,email=15/s", "has email twice"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.5 or 10.0.0.0/8"),
        ("TRUSTED_PROXIES", "proxy.internal", "10.0.0.5 or 10.0.0.0/8"),
        ("MAIL_CAP", "-1", "a whole number from 0"),
    ],
)
def test_a_wrong_limit_is_refused_with_its_cure(name: str, value: str, cure: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(cure)):
        read_settings({f"TOCSIN_{name}": value})
