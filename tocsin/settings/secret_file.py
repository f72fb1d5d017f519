"""The secrets that `tocsin up` makes for itself, in one file of the data directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

NAME = "secrets.json"
RANDOM_BYTES = 36  # 48 characters, enough for HS384 too


class SecretFileError(Exception):
    """The file is there and can't be used; one line that says why."""


def read_secrets(data_dir: Path) -> dict[str, str]:
    """What is kept so far, by name; nothing where there is no file. Raises SecretFileError."""
    file = data_dir / NAME
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise SecretFileError(
            f"{file} is another user's: run this as the one of `make up`"
        ) from None
    except (OSError, msgspec.DecodeError):
        raise SecretFileError(
            f"{file} can't be read: mend it, or begin anew with make reset"
        ) from None


def keep_secrets(data_dir: Path, *names: str) -> dict[str, str]:
    """Makes those that are missing, keeps the others, and returns all."""
    kept = read_secrets(data_dir)
    made = {name: secrets.token_urlsafe(RANDOM_BYTES) for name in names if not kept.get(name)}
    if made:
        kept |= made
        write_secret(data_dir / NAME, msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
    return kept


def write_secret(file: Path, content: bytes) -> None:
    """All or nothing, and never readable by others: a crash in between leaves the old file."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
