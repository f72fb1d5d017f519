"""The template tag and the view: a token that the service accepts, for the person who is signed in."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import jwt
import pytest
from accounts.models import Member
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.conf import settings as project
from django.test import Client

from tocsin.contrib.django.people import token_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Member:
    return Member.objects.create_user("alice", password="a")


@pytest.fixture
def client(alice: Member) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def test_the_page_of_a_signed_in_person_has_the_bell_and_a_token(
    client: Client, alice: Member
) -> None:
    text = client.get("/page/").content.decode()
    assert '<script type="module" src="https://notify.example.com/assets/tocsin-bell.js">' in text
    assert 'data-token-url="/tocsin/token/"' in text
    assert 'theme="dark"' in text
    assert 'title-count=""' in text
    token = re.search(r'token="([^"]+)"', text)
    assert token is not None
    claims = jwt.decode(token[1], project.TOCSIN["SIGNING_KEY"], algorithms=["HS256"])
    assert claims["sub"] == str(alice.pk)
    assert claims["exp"] - claims["iat"] == 3600


def test_the_page_of_nobody_has_no_bell() -> None:
    assert "tocsin" not in Client().get("/page/").content.decode()


def test_the_view_returns_the_next_token_to_the_person_alone(client: Client, alice: Member) -> None:
    response = client.get("/tocsin/token/")
    assert "no-store" in response.headers["Cache-Control"]
    claims = jwt.decode(
        response.json()["token"], project.TOCSIN["SIGNING_KEY"], algorithms=["HS256"]
    )
    assert claims["sub"] == str(alice.pk)
    assert Client().get("/tocsin/token/").status_code == 403
    assert client.post("/tocsin/token/").status_code == 405


def test_an_attribute_is_escaped(client: Client) -> None:
    from django.template import Context, Template

    alice = Member.objects.get()
    template = Template("{% load tocsin %}{% tocsin_bell locale=locale %}")
    text = template.render(Context({"user": alice, "locale": '"><script>'}))
    assert "<script>" not in text.replace("</script>", "")


def test_a_private_key_signs_with_audience_and_issuer(settings: Any, alice: Member) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    settings.TOCSIN = {
        "SIGNING_KEY": pem,
        "SIGNING_ALGORITHM": "ES256",
        "AUDIENCE": "notifications",
        "ISSUER": "https://shop.example.com",
        "TOKEN_LIFETIME": timedelta(minutes=5),
    }
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(token_for(alice), public, algorithms=["ES256"], audience="notifications")
    assert claims["iss"] == "https://shop.example.com"
    assert claims["exp"] - claims["iat"] == 300
