"""Checks a host's templates before a mail is sent: each problem is one line with its file and place.

Every template is compiled, searched for unknown variables, and rendered with sample data of every event type that uses
it. This runs in a process of its own, which the kernel ends if a template takes too long.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from babel import Locale, UnknownLocaleError
from babel.messages.catalog import Message
from babel.messages.pofile import PoFileError, read_po
from jinja2 import TemplateError, meta, nodes
from msgspec import Struct

from tocsin.engine.mail.loader import (
    SHIPPED,
    SHIPPED_PREFIX,
    WORDS,
    TemplateFailed,
    TemplateProblem,
    Templates,
    names_of,
)
from tocsin.engine.mail.samples import FILE as SAMPLES
from tocsin.engine.mail.samples import OTHERS, VARIANTS, SampleMails
from tocsin.engine.model import EventType

# Variables that a template uses in any branch and its mails don't have; found without rendering.

UnknownName = tuple[str, int, str]
"""A template, its line, and the problem there."""


def unknown_names(
    templates: Templates, contexts: Mapping[str, Mapping[str, Any]]
) -> Iterator[UnknownName]:
    """Finds them in the templates of mails, each with its context, and in all templates that they refer to."""
    for root, context in contexts.items():
        known = dict(templates.environment.globals) | dict(context)
        yield from _unknown_in(templates, root, known, frozenset())


def references(templates: Templates, name: str) -> Iterator[str]:
    """Returns the templates that one refers to."""
    if tree := _parsed(templates, name):
        yield from (each for each in meta.find_referenced_templates(tree) if each)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the nearest known one, in brackets."""
    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _unknown_in(
    templates: Templates, name: str, known: Mapping[str, Any], above: frozenset[str]
) -> Iterator[UnknownName]:
    if name in above or (tree := _parsed(templates, name)) is None:
        return
    # templates that it includes or extends may use what it sets; rendering shows whether it is set
    stored = {node.name: None for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    for each in sorted(meta.find_undeclared_variables(tree) - known.keys() - stored.keys()):
        found = next(node for node in tree.find_all(nodes.Name) if node.name == each)
        yield name, found.lineno, f"unknown variable {each!r}{did_you_mean(each, known)}"
    yield from ((name, line, why) for line, why in _unknown_attributes(tree, known))
    for reference in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        sees_all = getattr(reference, "with_context", True)
        within = stored | dict(known) if sees_all else dict(templates.environment.globals)
        for other in _named(reference):
            yield from _unknown_in(templates, other, within, above | {name})


def _unknown_attributes(
    tree: nodes.Template, known: Mapping[str, Any]
) -> Iterator[tuple[int, str]]:
    for each in tree.find_all(nodes.Getattr):
        keys = _keys(each.node.name, known) if isinstance(each.node, nodes.Name) else None
        if keys and each.attr not in keys and isinstance(each.node, nodes.Name):
            near = did_you_mean(each.attr, keys)
            yield each.lineno, f"unknown attribute {each.attr!r} of {each.node.name}{near}"


def _keys(owner: str, known: Mapping[str, Any]) -> set[str] | None:
    """Returns the attributes of `brand`; those of other values depend on the app."""
    value = known.get(owner)
    return set(value.__struct_fields__) if owner == "brand" and value is not None else None


def _named(reference: nodes.Node) -> Iterator[str]:
    """Returns the templates that a tag names by constants."""
    wanted = getattr(reference, "template", None)
    if isinstance(wanted, nodes.Const) and isinstance(wanted.value, str):
        yield wanted.value
    elif isinstance(wanted, nodes.List | nodes.Tuple):
        yield from (each.value for each in wanted.items if isinstance(each, nodes.Const))


def _parsed(templates: Templates, name: str) -> nodes.Template | None:
    file = templates.file(name)
    return templates.environment.parse(file.read_text("utf-8"), name) if file else None


# Problems of a host's catalogues: one that can't be read, or a value that its message does not have.

_VALUE = re.compile(r"%(?:\((\w+)\)s|\((\w+)\)d|%|.)")


def catalogue_problems(folder: Path) -> Iterator[TemplateProblem]:
    """Checks each `<language>.po` of a folder."""
    for path in sorted(folder.glob("*.po")):
        name = f"{folder.name}/{path.name}"
        try:
            Locale.parse(path.stem)
            with path.open("rb") as file:
                catalogue = read_po(file, locale=path.stem, abort_invalid=True)
        except (UnknownLocaleError, ValueError) as error:
            why = (
                "it is not in UTF-8"
                if isinstance(error, UnicodeError)
                else "it is named after no language"
            )
            yield TemplateProblem(name, None, why)
        except PoFileError as error:
            yield TemplateProblem(name, (error.lineno or 0) + 1, str(error.args[0]))
        else:
            for message in catalogue:
                if message.id and (unknown := _unknown_value(message)):
                    yield TemplateProblem(name, message.lineno, unknown)


def _unknown_value(message: Message) -> str | None:
    """Returns why each mail with this message would fail: a translation has a value that the message has not."""
    ids = message.id if isinstance(message.id, tuple) else (message.id,)
    words = message.string if isinstance(message.string, tuple) else (message.string,)
    given = {value for each in ids for value in _values(str(each))}
    for value in (value for each in words if each for value in _values(str(each))):
        if value not in given:
            known = ", ".join(sorted(given)) or "none"
            return f"unknown value {value!r}; these words have {known}"
    return None


def _values(text: str) -> Iterator[str]:
    """Returns the names in %(…)s, and single percent signs, which would be read as one."""
    for match in _VALUE.finditer(text):
        if match[0] != "%%":
            yield match[1] or match[2] or match[0]


SECONDS = 5.0  # of CPU, for one template
MOST_BYTES = 2 << 30
_TIMEOUT = 120.0
_WORDS = "facts are pairs of a name and a value; subject, preheader, button and highlight are texts"
_MOST_FAILURES = 10  # of one template

_OWN = re.compile(r"notifications/([a-z][a-z0-9_]*)/([a-z][a-z0-9_]*)\.(?:html|txt|words\.txt)")

T = TypeVar("T")


class _Task(Struct, frozen=True):
    folder: str | None
    types: list[EventType]
    seconds: float


def check(
    folder: Path | None, types: Sequence[EventType], *, seconds: float = SECONDS
) -> list[TemplateProblem]:
    """Returns all problems of a folder's templates; blocks for about a second. Each template gets `seconds` of CPU."""
    where = str(folder.resolve()) if folder else None
    task = msgspec.json.encode(_Task(where, list(types), seconds))
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=task,
            capture_output=True,
            timeout=_TIMEOUT,
        )
        output, ended = done.stdout, done.returncode < 0  # by a signal
        if done.returncode > 0:
            raise RuntimeError(done.stderr.decode(errors="replace"))
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", True
    at, problems = "templates", []
    for line in output.decode().splitlines():
        found = json.loads(line)
        if isinstance(found, str):
            at = found
        else:
            problems.append(msgspec.convert(found, TemplateProblem))
    if ended:
        problems.append(TemplateProblem(at, None, f"it takes longer than {seconds:g} s"))
    return problems


class _Recorder(Templates):
    """Renders templates, and records the context of each, and the failures."""

    def __init__(self, folder: Path | None, seconds: float) -> None:
        super().__init__(folder, inline=False)  # so that lines are those of the files
        self.seconds = seconds
        self.contexts: dict[str, dict[str, Any]] = {}
        self.failures: list[TemplateFailed] = []
        self.words_name = ""  # the last words.txt
        self._failed: Counter[str] = Counter()

    def render(self, names: Sequence[str], context: Mapping[str, Any]) -> str:
        return self._tried(names, context, super().render) or ""

    def variables(self, names: Sequence[str], context: Mapping[str, Any]) -> dict[str, Any]:
        self.words_name = next(name for name in names if self.file(name))
        return self._tried(names, context, super().variables) or {}

    def _tried(
        self,
        names: Sequence[str],
        context: Mapping[str, Any],
        act: Callable[[Sequence[str], Mapping[str, Any]], T],
    ) -> T | None:
        root = next(name for name in names if self.file(name))
        if self._failed[root] >= _MOST_FAILURES:
            return None
        # a template may use the variables that all its mails have
        known = self.contexts.setdefault(root, dict(context))
        self.contexts[root] = {name: known[name] for name in known if name in context}
        self.report(root)
        try:
            return act(names, context)
        except TemplateFailed as error:
            self._failed[root] += 1
            self.failures.append(error)
            return None

    def report(self, name: str) -> None:
        """Prints the name of the next template, and gives it its CPU time."""
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        print(json.dumps(name), flush=True)


def _run() -> None:
    """Runs in the process: a task on standard input, progress and problems as lines of JSON on standard output."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    folder = Path(task.folder) if task.folder else None
    seen: set[TemplateProblem] = set()
    for problem in _problems(_Recorder(folder, task.seconds), task.types):
        if problem not in seen:
            seen.add(problem)
            print(json.dumps(msgspec.to_builtins(problem)), flush=True)


def _problems(recorder: _Recorder, types: Sequence[EventType]) -> Iterator[TemplateProblem]:
    try:
        names = sorted(_names(recorder))
        mails = SampleMails(recorder, types, "Sample <sample@example.com>")
    except TemplateFailed as error:
        yield error.problem
        return
    broken = list(catalogue_problems(recorder.folder / WORDS)) if recorder.folder else []
    broken += list(_compiled(recorder, Templates(recorder.folder), names))
    yield from broken
    if broken:
        return  # the next checks would find the same again, less clearly
    failures = _rendered(recorder, mails)
    signal.setitimer(signal.ITIMER_PROF, 0)
    unknown = [TemplateProblem(*each) for each in unknown_names(recorder, recorder.contexts)]
    yield from unknown
    places = {(each.name, each.line) for each in unknown}
    found = [_to_problem(recorder, *failure) for failure in failures]
    yield from (each for each in found if (each.name, each.line) not in places)
    yield from _strays(recorder, names, types)


def _names(templates: Templates) -> set[str]:
    """Returns the host's templates and the shipped ones, with `tocsin/` before the names of overridden ones."""
    _ = templates.brand
    host = _below(templates.folder) if templates.folder else set()
    shipped = _below(SHIPPED)
    return host | shipped | {f"{SHIPPED_PREFIX}/{name}" for name in shipped & host}


def _below(folder: Path) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix in {".html", ".txt"} and file.is_file()
    }


def _compiled(
    raw: _Recorder, inlined: Templates, names: Sequence[str]
) -> Iterator[TemplateProblem]:
    for name in names:
        raw.report(name)
        for templates in (raw, inlined):
            try:
                templates.environment.get_template(name)
            except (TemplateError, TemplateFailed, OSError, UnicodeDecodeError) as error:
                yield templates.failure(error, name).problem
                break


def _rendered(recorder: _Recorder, mails: SampleMails) -> list[tuple[TemplateFailed, str]]:
    """Returns the failures, each with the kind of mail."""
    found = []
    for kind in mails.kinds:
        for variant in VARIANTS if kind not in OTHERS else ("in full", "with a title alone"):
            try:
                mails.mail(kind, variant)
            except (TypeError, ValueError, AttributeError):
                recorder.failures.append(TemplateFailed(recorder.words_name, None, _WORDS))
            found += [(error, kind) for error in recorder.failures]
            recorder.failures.clear()
    return found


def _to_problem(templates: Templates, error: TemplateFailed, kind: str) -> TemplateProblem:
    """Returns the problem of a mail that failed to render, with its cure."""
    name, at, why = error.problem.name, error.problem.line, error.problem.why
    missing = re.search(r"has no (?:attribute|element) '?(\w+)'?", why)
    if missing is None:
        return error.problem
    file = templates.file(name)
    line = file.read_text("utf-8").splitlines()[(at or 1) - 1] if file else ""
    if re.search(rf"metadata(?:\.|\[['\"]){missing[1]}\b", line):
        cure = f"add it to {SAMPLES}, or use metadata.get()"
        return TemplateProblem(
            name, at, f"the sample of {kind} has no metadata {missing[1]!r}: {cure}"
        )
    return TemplateProblem(name, at, f"unknown attribute {missing[1]!r}")


def _strays(
    templates: Templates, names: Sequence[str], types: Sequence[EventType]
) -> Iterator[TemplateProblem]:
    """Finds templates that no mail uses."""
    used = {
        name
        for each in types
        for kind in ("html", "txt", "words.txt")
        for name in names_of(each.event_type, kind)
    }
    used |= {each for name in names for each in references(templates, name)}
    known = [each.event_type for each in types]
    for name in names:
        match = _OWN.fullmatch(name)
        if match and name not in used:
            event_type = f"{match[1]}.{match[2]}"
            if match[2] == "email":
                categories = {each.category for each in types}
                why = f"there is no category {match[1]!r}{did_you_mean(match[1], categories)}"
            else:
                why = f"there is no event type {event_type!r}{did_you_mean(event_type, known)}"
            yield TemplateProblem(name, None, why, stray=True)


if __name__ == "__main__":
    _run()
