"""What an import of the package and a command's help load: neither needs a server's packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVER = {"asyncio", "jinja2", "litestar", "procrastinate", "psycopg", "structlog", "uvicorn"}


def loaded(code: str) -> set[str]:
    """Returns which of the server's packages a new interpreter has imported after this code."""
    show = (
        "import atexit, sys; atexit.register(lambda: print('\\n', *sys.modules, file=sys.stderr))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{show}\n{code}"], capture_output=True, text=True, check=True
    )
    return SERVER & set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["api-key", "--help"], ["serve", "--help"]])
def test_help_loads_no_package_of_the_server(arguments: list[str]) -> None:
    code = f"import sys; sys.argv[1:] = {arguments}; from tocsin.__main__ import main; main()"
    assert loaded(code) == set()


def test_the_package_loads_psycopg_with_the_first_name_that_is_used() -> None:
    assert loaded("import tocsin") == set()
    assert loaded("from tocsin.event_types import FORUM_NEW_REPLY") == set()
    assert "psycopg" in loaded("from tocsin import notify")


def test_the_package_has_the_names_of_the_client_and_no_others() -> None:
    code = """
        import tocsin, tocsin.client
        names = {}
        exec("from tocsin import *", names)
        assert set(tocsin.client.__all__) == set(names) - {"__builtins__"}, names
        assert names["notify"] is tocsin.client.notify is tocsin.notify
        assert not hasattr(tocsin, "caller_for")
    """
    assert "psycopg" in loaded("\n".join(line.strip() for line in code.splitlines()))
