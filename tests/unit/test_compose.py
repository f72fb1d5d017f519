"""docker-compose.yml: what can be checked of it without a container engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin.settings import read_settings

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "tocsin"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def resolved(value: object, given: dict[str, str]) -> str:
    """As compose fills in `${NAME:-default}` and `${NAME:?message}`."""
    return VARIABLE.sub(lambda m: given.get(m[1], m[3] if m[2] == "-" else ""), str(value))


def test_it_runs_two_of_each() -> None:
    assert set(SERVICES) == {"postgres", "roles", "migrate", "http", "worker", "proxy", "mail"}
    assert [SERVICES[name]["deploy"]["replicas"] for name in ("http", "worker")] == [2, 2]
    assert not any("ports" in service for service in OURS.values())  # replicas can't share one


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_one_of_the_command_line(name: str) -> None:
    from tocsin.cli import main

    [command] = OURS[name]["command"]

    assert command in main.commands


@pytest.mark.parametrize("name", OURS)
def test_its_settings_are_known_and_valid(name: str) -> None:
    given = {
        "OWNER_PASSWORD": "owner123",
        "SERVICE_PASSWORD": "service123",
        "TOCSIN_JWT_SECRET": "0" * 64,
        "TOCSIN_PUBLIC_URL": "http://localhost:8000",
    }
    environ = {key: resolved(value, given) for key, value in OURS[name]["environment"].items()}

    settings = read_settings(environ)

    assert settings.unknown == ()
    login = {"migrate": "tocsin_owner:owner123"}.get(name, "tocsin_service_login:service123")
    assert settings.database_url == f"postgresql://{login}@postgres:5432/tocsin"
    assert [each.host in SERVICES for each in settings.smtp_servers] == [True]
    assert settings.public_url == given["TOCSIN_PUBLIC_URL"]


def test_a_required_variable_is_named_where_it_is_missing() -> None:
    required = {name for name, kind, message in VARIABLE.findall(TEXT) if kind == "?" and message}

    assert required == {
        "POSTGRES_PASSWORD",
        "OWNER_PASSWORD",
        "SERVICE_PASSWORD",
        "APP_PASSWORD",
        "TOCSIN_JWT_SECRET",
        "TOCSIN_PUBLIC_URL",
    }
    assert not re.search(r"(?i)(password|secret)[^\n]*:-[^}]", TEXT)  # no secret has a default


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_waits_for_what_is_there(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_of_a_named_version(name: str) -> None:
    image = SERVICES[name]["image"]

    assert image == "tocsin" or re.search(r":v?\d", image)


def test_the_image_is_built_from_files_that_are_there() -> None:
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    sources = {source for line in copied for source in line.split()}
    let_through = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))

    assert sources == let_through
    assert [source for source in sources if not (ROOT / source).exists()] == []
