"""The diagram of the tables as pictures, drawn by Graphviz from the Mermaid source that GitHub draws by itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

LOOKS = ("light", "dark")
NAME = "tables-{look}.svg"
SOURCE = re.compile(r"^```mermaid\n(erDiagram\n.*?)^```\n", re.MULTILINE | re.DOTALL)

_TABLE = re.compile(r"^    (\w+) \{\n(.*?)^    \}$", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"^        \S+ (\w+) (?:PK|FK)", re.MULTILINE)
_REFERENCE = re.compile(r"^    (\w+) \S\S(--|\.\.)\S\S (\w+) : \w+$", re.MULTILINE)


class Colours(NamedTuple):
    """The colours of one look."""

    text: str
    head: str
    line: str


_COLOURS: Mapping[str, Colours] = {
    "light": Colours("#1e1e1e", "#f3e8dc", "#8a8a8a"),
    "dark": Colours("#e6e6e6", "#3a3129", "#8a8a8a"),
}


def is_possible() -> bool:
    """Returns whether Graphviz is installed."""
    return shutil.which("dot") is not None


def draw(mermaid: str, folder: Path) -> None:
    """Writes a picture for each look."""
    for look in LOOKS:
        command = ["dot", "-Tsvg", "-o", str(folder / NAME.format(look=look))]
        graph = _graph(mermaid, _COLOURS[look])
        subprocess.run(command, input=graph, text=True, check=True)


def _graph(mermaid: str, colours: Colours) -> str:
    """Returns the source in Graphviz's language: of each table its name and its keys, of each reference an edge."""
    return "\n".join(
        [
            "digraph tables {",
            "rankdir=LR bgcolor=transparent nodesep=0.15 ranksep=0.9",
            f'node [shape=plain fontname="Helvetica" fontsize=11 fontcolor="{colours.text}"]',
            f'edge [color="{colours.line}" arrowsize=0.6]',
            *_tables(mermaid, colours),
            *_references(mermaid),
            "}",
        ]
    )


def _tables(mermaid: str, colours: Colours) -> Iterator[str]:
    for name, columns in _TABLE.findall(mermaid):
        rows = "".join(f'<tr><td align="left">{key}</td></tr>' for key in _KEY.findall(columns))
        head = f'<tr><td bgcolor="{colours.head}"><b>{name}</b></td></tr>'
        table = f'<table border="0" cellborder="1" cellspacing="0" color="{colours.line}">'
        yield f"{name} [label=<{table}{head}{rows}</table>>]"


def _references(mermaid: str) -> Iterator[str]:
    """Yields one edge for two tables, however many columns of one name the other."""
    edges = {(target, source): kind for target, kind, source in _REFERENCE.findall(mermaid)}
    for (target, source), kind in edges.items():
        style = "" if kind == "--" else " [style=dotted]"
        yield f"{target} -> {source}{style}"
