"""The providers are in one table, `PROVIDERS`; settings, worker, migration, REST and pages agree with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast, get_args

from tests.support.phones import far_ends
from tocsin.engine import worker
from tocsin.engine.model import PROVIDERS, Channel
from tocsin.http.people import devices
from tocsin.settings import DECLARED, PREFIX, read_settings
from tocsin.settings.keys import new_vapid_key

ROOT = Path(__file__).parents[2]
MIGRATION = (ROOT / "tocsin" / "sql" / "migrations" / "0001_tocsin.sql").read_text("utf-8")
PUSH = {name for name, each in PROVIDERS.items() if each.channel is Channel.PUSH}


def test_each_is_configured_by_a_setting() -> None:
    assert {each.setting for each in PROVIDERS.values() if each.setting} <= {
        PREFIX + each.name for each in DECLARED
    }


async def test_a_worker_with_all_settings_has_an_actor_for_each(tmp_path: Path) -> None:
    async with far_ends(tmp_path) as (_, _, given):
        environ = {f"TOCSIN_{name.upper()}": value for name, value in given.items()}
        environ["TOCSIN_SMTP_URL"] = "smtp://127.0.0.1:1"
        environ["TOCSIN_VAPID_KEY"] = new_vapid_key()
        actors = worker._actors(read_settings(environ), cast("Any", None), b"key")
    reported = {name: [each.name for each in actor.reports()] for name, actor in actors.items()}
    assert reported == {name: [name] for name in PROVIDERS}


def test_the_labels_are_those_of_the_operations_page() -> None:
    script = (ROOT / "web" / "src" / "ops" / "format.ts").read_text("utf-8")
    labels = dict(re.findall(r"^  (\w+): '([^']+)',$", script, re.MULTILINE))
    assert {name: labels.get(name) for name in PROVIDERS} == {
        name: each.label for name, each in PROVIDERS.items()
    }


def test_a_device_has_one_of_the_providers_of_push() -> None:
    """Its environment, which decides between the two of APNs, is a column of its own."""
    (allowed,) = re.findall(r"provider text not null check \(provider in \((.+?)\)\)", MIGRATION)
    names = {name.strip(" '") for name in allowed.split(",")}
    assert names == PUSH - {"apns_sandbox"} | {Channel.WEB_PUSH}
    assert set(get_args(devices.PushProvider)) == PUSH - {"apns_sandbox"} | {Channel.WEB_PUSH}


def test_the_comment_of_the_table_of_providers_names_them() -> None:
    (comment,) = re.findall(r"column tocsin\.provider\.provider is 'Its name: (.+?)\.'", MIGRATION)
    assert re.split(r", | or ", comment) == list(PROVIDERS)
