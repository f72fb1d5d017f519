"""The page of the commands, from what each prints with --help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tocsin.cli import main

WIDTH = 100


def commands_page(root: Path) -> str:
    """Returns the page as Markdown; `root` is where the package was imported from."""
    del root
    return "\n".join(
        [
            "# Commands",
            "",
            "What each command prints with `--help`. [Operations](../operations.md) describes when each is used.",
            "",
            *_command(main, None, "tocsin"),
        ]
    )


def _command(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    context = click.Context(
        command, info_name=name, parent=parent, max_content_width=WIDTH, terminal_width=WIDTH,
        help_option_names=["-h", "--help"],
    )  # fmt: skip
    yield from (f"## {context.command_path}", "", "```text", context.get_help(), "```", "")
    if isinstance(command, click.Group):
        for each in sorted(command.commands):
            yield from _command(command.commands[each], context, each)
