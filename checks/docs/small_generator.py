"""A generator for a made-up version: it writes two files into the given folder."""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
for option in ("--version", "--site", "--sphinx"):
    parser.add_argument(option)
arguments = parser.parse_args()
folder = Path(arguments.site, arguments.version)
folder.mkdir(parents=True)
(folder / "index.html").write_text("<title>A version</title>")
(folder / "llms.txt").write_text("- [Start](start.md): the first page\n")
