"""The guide for Capacitor with its real packages, in a page with a stand-in for the native side of a phone."""

from __future__ import annotations

import json
import subprocess

import pytest
from frontend_project import Project
from host_site import *  # noqa: F403 - fixtures
from host_site import HostPage, HostSite, until
from npm_package import MODULES
from playwright.sync_api import BrowserContext, Page, expect

HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>App</title>
<tocsin-bell></tocsin-bell><script type="module" src="/PLATFORM.js"></script>"""
# What Capacitor's native side puts into the WebView: the methods of its plugins, and two ways to call them.
NATIVE = """
globalThis.listeners = {};
globalThis.asked = [];
const promises = ['checkPermissions', 'requestPermissions', 'register', 'removeAllListeners'];
const methods = [
  ...promises.map((name) => ({ name, rtype: 'promise' })),
  { name: 'addListener', rtype: 'callback' }, { name: 'removeListener', rtype: 'callback' },
];
globalThis.Capacitor = {
  PluginHeaders: [{ name: 'PushNotifications', methods }, { name: 'App', methods }],
  async nativePromise(plugin, method) {
    asked.push(method);
    if (method === 'register') queueMicrotask(() => listeners.registration({ value: PUSH_TOKEN }));
    return { receive: method === 'requestPermissions' ? 'granted' : 'prompt' };
  },
  nativeCallback(plugin, method, { eventName }, callback) {
    listeners[eventName] = callback;
    return eventName;
  },
};
"""
BRIDGES = {
    "ios": "globalThis.webkit = { messageHandlers: { bridge: { postMessage() {} } } };",
    "android": "globalThis.androidBridge = {};",
}
TOKENS = {"ios": "a1" * 32, "android": "fcm-token:of-a-phone"}
COMPILED = {
    "strict": True,
    "noEmit": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "lib": ["es2022", "dom", "dom.iterable", "dom.asynciterable"],
    "skipLibCheck": True,
    "types": [],
}
ENVIRONMENT = """interface ImportMeta {
  readonly env: { VITE_NOTIFY_URL: string; VITE_APP_URL: string; DEV: boolean };
}
"""
# An app has a button for it.
SIGN_OUT = """
import { createClient } from 'tocsin/client';
import { unregisterPhone } from './src/push';
const getToken = async () => (await fetch('/notification-token')).text();
globalThis.signOut = () => unregisterPhone(createClient({ api: import.meta.env.VITE_NOTIFY_URL, getToken }));
await import('./src/main');
"""


@pytest.fixture(scope="module")
def app(site: HostSite) -> Project:
    return Project("capacitor", "capacitor.md", site)


def bundled(app: Project, site: HostSite, platform: str) -> str:
    values = {"VITE_NOTIFY_URL": f"{site.url}/", "VITE_APP_URL": site.front.origin, "DEV": False}
    defined = [
        f"--define:import.meta.env.{name}={json.dumps(each)}" for name, each in values.items()
    ]
    output = app.folder / "bundle.js"
    esbuild = str(MODULES / "esbuild" / "bin" / "esbuild")
    options = ["--bundle", "--format=esm", f"--outfile={output}", *defined]
    (app.folder / "check.ts").write_text(SIGN_OUT)
    subprocess.run([esbuild, "check.ts", *options], cwd=app.folder, check=True, timeout=600)
    native = NATIVE.replace("PUSH_TOKEN", json.dumps(TOKENS[platform]))
    return f"{BRIDGES[platform]}\n{native}\n{output.read_text('utf-8')}"


def test_the_guide_is_well_typed_with_the_plugins(app: Project) -> None:
    (app.folder / "environment.d.ts").write_text(ENVIRONMENT)
    (app.folder / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": COMPILED, "include": ["src", "environment.d.ts"]})
    )
    app.run("node", str(MODULES / "typescript" / "bin" / "tsc"), "--project", ".")


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_a_phone_is_registered_at_the_start_and_a_tap_opens_its_page(
    app: Project, site: HostSite, context: BrowserContext, platform: str
) -> None:
    person = site.person()
    id_ = site.notify(person, "Bob replied", action_url="/forums/42")
    page: Page = context.new_page()
    page.route("**/notification-token", lambda route: route.fulfill(body=site.token(person)))
    html = HTML.replace("PLATFORM", platform)
    page.goto(
        site.front.origin + site.front.show(platform, HostPage(html, bundled(app, site, platform)))
    )
    expect(page.get_by_role("button", name="Notifications, 1 unread")).to_be_visible()
    until(lambda: devices(site, person), lambda: "no phone was registered")
    (device,) = devices(site, person)
    provider = {"ios": "apns", "android": "fcm"}[platform]
    assert (device["platform"], device["provider"]) == (platform, provider)
    assert (device["token"], device["environment"]) == (TOKENS[platform][-6:], "production")
    assert page.evaluate("asked.includes('requestPermissions')")
    tap = {"notification": {"data": {"notification_id": str(id_), "action_url": "/forums/42"}}}
    page.evaluate("(tap) => listeners.pushNotificationActionPerformed(tap)", tap)
    expect(page.get_by_role("button", name="Notifications, 0 unread")).to_be_visible()
    until(
        lambda: page.evaluate("location.hash") == "#/forums/42",
        lambda: "the tap did not open its page",
    )
    asked = [{"key": "accept", "label": "Accept"}, {"key": "decline", "label": "Decline"}]
    id_ = site.notify(person, "Will you come?", actions=asked)
    pushed = {"notification_id": str(id_), "actions": json.dumps(asked)}
    press = {"actionId": "accept", "notification": {"data": pushed}}
    page.evaluate("(press) => listeners.pushNotificationActionPerformed(press)", press)
    until(lambda: pressed(site, person) == ["accept"], lambda: "no button was pressed")
    page.evaluate("signOut()")
    until(lambda: not devices(site, person), lambda: "the phone is still registered")


def pressed(site: HostSite, person: str) -> list[str]:
    found = site.request(person, "GET", "notifications/")["results"]
    return [each["acted"]["key"] for each in found if each["acted"]]


def devices(site: HostSite, person: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = site.request(person, "GET", "push-tokens/")["results"]
    return found
