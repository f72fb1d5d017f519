"""The npm package: what it carries, that a server can import it, and its types in each framework."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from npm_package import MODULES, WEB, install, node, packed

MANIFEST: dict[str, Any] = json.loads((WEB / "package.json").read_text())
IMPORTED = re.compile(r"""(?:from|import|import\() ?['"](\./[\w.-]+)['"]""")
COMPILER = str(MODULES / "typescript" / "bin" / "tsc")
OPTIONS = {
    "strict": True,
    "noEmit": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "exactOptionalPropertyTypes": True,
    "types": [],
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project with the package installed."""
    install(tmp_path)
    return tmp_path


def exported() -> set[str]:
    return {path[2:] for each in MANIFEST["exports"].values() for path in each.values()}


def reachable(folder: Path, names: set[str]) -> set[str]:
    """Returns the files, and those that they import, also indirectly. Types import `x.js` for `x.d.ts`."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        for path in IMPORTED.findall((folder / name).read_text("utf-8")):
            target = f"dist/{path[2:]}"
            target = target.replace(".js", ".d.ts") if name.endswith(".d.ts") else target
            waiting |= {target} - found
    return found


def test_the_package_carries_what_it_exports_and_nothing_else(project: Path) -> None:
    carried = {each["path"] for each in packed()["files"]}
    needed = reachable(project / "node_modules" / "tocsin", exported())
    assert carried == needed | {"package.json", "README.md", "LICENSE"}


def test_the_package_has_no_dependency() -> None:
    assert "dependencies" not in MANIFEST
    assert all(each["optional"] for each in MANIFEST["peerDependenciesMeta"].values())
    assert MANIFEST["peerDependencies"].keys() == MANIFEST["peerDependenciesMeta"].keys()


@pytest.mark.parametrize(
    "name", [name for name, each in MANIFEST["exports"].items() if "default" in each]
)
def test_a_server_without_a_dom_can_import_it(project: Path, name: str) -> None:
    (project / "node_modules" / "react").symlink_to(MODULES / "react")
    module = name.replace(".", "tocsin", 1)
    script = f"console.log(Object.keys(await import('{module}')).length)"
    ran = node("--input-type=module", "--eval", script, cwd=project)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 0


def compiled(project: Path, **files: str) -> str:
    """Returns the complaints of the compiler, one a line. The name of a file ends with `_ts` or `_tsx`."""
    for name, text in files.items():
        (project / name.replace("_ts", ".ts")).write_text(text)
    libraries = {"lib": ["es2022", "dom", "dom.iterable", "dom.asynciterable"]}
    options = {**OPTIONS, **libraries, "jsx": "react-jsx"}
    (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
    return node(COMPILER, "--project", str(project), cwd=project).stdout


HOOKS = """
import { createClient, type Notification } from 'tocsin/client';
import { TocsinBell, TocsinProvider, useNotifications, useUnreadCount } from 'tocsin/react';

const client = createClient({ api: 'https://notify.example.com/', getToken: async () => 'a token' });

function Inbox() {
  const count: number | null = useUnreadCount();
  const { items, markRead, more, loadMore } = useNotifications({ unreadOnly: true });
  return (
    <>
      <h2>{count}</h2>
      {items.map((item: Notification) => (
        <button key={item.id} onClick={() => void markRead(item.id)}>
          {item.title}
        </button>
      ))}
      {more && <button onClick={() => void loadMore()}>More</button>}
    </>
  );
}

export function Page() {
  return (
    <TocsinProvider client={client}>
      <TocsinBell api="/notify/" theme="dark" title-count onOpen={(event) => event.detail.action_url} />
      <Inbox />
    </TocsinProvider>
  );
}
"""
ELEMENTS = """
import type { TocsinBell, TocsinBellEventMap } from 'tocsin';
import type {} from 'tocsin/react';

export function Header({ bell }: { bell: React.Ref<TocsinBell> }) {
  const events = { 'ontocsin:open': (event: TocsinBellEventMap['tocsin:open']) => event.preventDefault() };
  return (
    <>
      <tocsin-bell ref={bell} api="/notify/" theme="auto" locale="de" title-count="" class="bell" {...events} />
      <tocsin-preferences api="/notify/" describeTopic={(topic) => ({ label: topic })} />
    </>
  );
}
"""
WRONG_ELEMENTS = """
import type {} from 'tocsin/react';
export const a = <tocsin-bell theme="blue" />;
export const b = <tocsin-bell words={3} />;
export const c = <tocsin-bell {...{ 'ontocsin:count': (event: CustomEvent<string>) => event }} />;
export const d = <tocsin-preferences locale={1} />;
"""


@pytest.mark.parametrize("types", ["@types/react", "types-react-18"])
def test_react_knows_the_elements_hooks_and_events(project: Path, types: str) -> None:
    (project / "node_modules" / "@types").mkdir()
    (project / "node_modules" / "@types" / "react").symlink_to(MODULES / types)
    reference = "import * as React from 'react';\n"
    errors = compiled(project, hooks_tsx=HOOKS, elements_tsx=reference + ELEMENTS)
    assert errors == ""
    refused = compiled(project, wrong_tsx=WRONG_ELEMENTS)
    assert {line[:9] for line in refused.splitlines() if "error TS" in line} == {"wrong.tsx"}
    assert refused.count("error TS") == 4, refused


VUE = """
import type { GlobalComponents } from 'vue';
import type {} from 'tocsin/vue';
type Props = InstanceType<GlobalComponents['tocsin-bell']>['$props'];
export const right: Props = { api: '/notify/', 'title-count': '', class: 'bell' };
export const events: Props = { 'onTocsin:open': (event) => event.detail.title };
"""
SVELTE = """
import type { SvelteHTMLElements } from 'svelte/elements';
import type {} from 'tocsin/svelte';
type Props = SvelteHTMLElements['tocsin-bell'];
export const right: Props = { api: '/notify/', 'title-count': true, class: 'bell' };
export const events: Props = { 'ontocsin:open': (event) => event.detail.title };
"""
WRONG = """
export const wrong: Props = { theme: 'blue' };
export const wrong2: Props = { EVENT: (event) => event.detail.nothing };
"""


@pytest.mark.parametrize(
    ("framework", "right", "event"),
    [("vue", VUE, "'onTocsin:count'"), ("svelte", SVELTE, "'ontocsin:count'")],
)
def test_vue_and_svelte_know_the_elements(
    project: Path, framework: str, right: str, event: str
) -> None:
    (project / "node_modules" / framework).symlink_to(MODULES / framework)
    assert compiled(project, right_ts=right) == ""
    refused = compiled(project, right_ts=right + WRONG.replace("EVENT", event))
    assert refused.count("error TS") == 2, refused


CLIENT = """
import { createClient, Problem, type StreamEvent } from 'tocsin/client';
const client = createClient({ api: 'https://notify.example.com/', token: 'a token' });
const page = await client.list({ read: false, limit: 50 });
const next: string | null = page.next;
for await (const { id, title } of client.all({ category: 'forum' })) console.log(id, title);
for await (const event of client.stream({ lastEventId: '1' })) {
  if (event.event === 'notification') console.log(event.data.title);
  if (event.event === 'read' && event.data.ids !== 'all') console.log(event.data.ids.length);
}
await client.setPreferences({ 'forum.*': { email: null } });
try { await client.markRead(1); } catch (error) { if (error instanceof Problem) console.log(error.status); }
const inbox = client.inbox({ unreadOnly: true });
const stop: () => void = inbox.subscribe(() => console.log(inbox.get().items[0]?.title));
export { next, stop };
export type Any = StreamEvent;
"""
WRONG_CLIENT = """
import { createClient } from 'tocsin/client';
const client = createClient({});
client.list({ limit: '50' });
client.badge.get().count;
for await (const event of client.stream()) if (event.event === 'badge') event.data.title;
"""


def test_the_client_is_typed_also_without_a_framework(project: Path) -> None:
    assert compiled(project, client_ts=CLIENT) == ""
    assert compiled(project, client_ts=WRONG_CLIENT).count("error TS") == 4
