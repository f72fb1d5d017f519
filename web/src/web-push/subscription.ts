// The push subscription of this browser, and what it shows.

import type { Api } from '../shared/api.js';
import { withNotifications } from '../shared/notification_lock.js';

interface Device {
  token: string; // its last characters
  platform: string;
  disabled_at: string | null;
}

/** `none`: this browser can't, or the person refused; `off`: it can be turned on; `on`: pushes reach this person here. */
export type PushState = 'none' | 'off' | 'on';

interface Policy {
  createScriptURL(url: string): unknown;
}

interface PolicyFactory {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): Policy;
}

const PATH = 'push-tokens/';
const PAGE = 100; // notifications, the most that a list returns

export class BrowserPush {
  #policy: Policy | null | undefined;

  /** `worker` is the address of the service worker, of the page's own origin. */
  constructor(
    private readonly api: Api,
    private readonly worker: string,
  ) {}

  static get supported(): boolean {
    return 'serviceWorker' in navigator && 'PushManager' in globalThis && 'Notification' in globalThis;
  }

  /** Rejects where the page's policy forbids to register a service worker. */
  async state(): Promise<PushState> {
    if (!BrowserPush.supported || Notification.permission === 'denied') return 'none';
    this.#trusted();
    const subscription = await (await this.#registration())?.pushManager.getSubscription();
    const key = await this.#key();
    if (!subscription || !isOf(subscription, key)) return 'off';
    const { results } = await this.api.json<{ results: Device[] }>('GET', PATH);
    const mine = results.some(
      ({ platform, token, disabled_at }) => platform === 'web' && !disabled_at && subscription.endpoint.endsWith(token),
    );
    return mine ? 'on' : 'off';
  }

  /** Asks for permission, so it must be called by a person's gesture; returns false where they refused. */
  async turnOn(label: string): Promise<boolean> {
    if ((await Notification.requestPermission()) !== 'granted') return false;
    const key = await this.#key();
    const { pushManager } = await active(await navigator.serviceWorker.register(this.#trusted()));
    let subscription = await pushManager.getSubscription();
    if (subscription && !isOf(subscription, key)) {
      await subscription.unsubscribe();
      subscription = null;
    }
    subscription ??= await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    await this.api.json('POST', PATH, { platform: 'web', subscription: subscription.toJSON(), label });
    return true;
  }

  /** Closes what was read elsewhere. */
  async closeRead(): Promise<void> {
    const before = new Set((await this.#shown()).keys());
    if (before.size === 0) return;
    const isUnread = await this.#unread(); // the count may be older than what is shown
    // shown again, since a later one with the same tag may have replaced it
    for (const [id, notification] of await this.#shown()) if (before.has(id) && !isUnread(id)) notification.close();
  }

  /** The worker's address as a page with Trusted Types demands it. */
  #trusted(): string {
    if (this.#policy === undefined) {
      const { trustedTypes } = globalThis as { trustedTypes?: PolicyFactory };
      this.#policy = trustedTypes?.createPolicy('tocsin-web-push', { createScriptURL: (url) => url }) ?? null;
    }
    return (this.#policy?.createScriptURL(this.worker) ?? this.worker) as string;
  }

  /** Returns the notifications of Tocsin that this browser shows, by their ids. */
  async #shown(): Promise<Map<number, Notification>> {
    const registration = await this.#registration();
    const found = registration ? await withNotifications(() => registration.getNotifications()) : [];
    const ours = found.filter(({ data }) => data?.notification_id);
    return new Map(ours.map((each) => [Number(each.data.notification_id), each]));
  }

  /** Older ones than a page of the list count as unread. */
  async #unread(): Promise<(id: number) => boolean> {
    const path = `notifications/?read=false&limit=${PAGE}`;
    const { results, next } = await this.api.json<{ results: { id: number }[]; next: string | null }>('GET', path);
    const ids = new Set(results.map(({ id }) => id));
    const oldest = next === null ? 0 : Math.min(...ids);
    return (id) => ids.has(id) || id < oldest;
  }

  async #registration(): Promise<ServiceWorkerRegistration | undefined> {
    if (!BrowserPush.supported) return undefined;
    const all = await navigator.serviceWorker.getRegistrations();
    return all.find(({ active }) => active?.scriptURL === new URL(this.worker, location.href).href);
  }

  async #key(): Promise<string> {
    return (await this.api.json<{ key: string }>('GET', 'web-push-key/')).key;
  }
}

/** Whether a subscription was made with this key; the service can use no other. */
function isOf(subscription: PushSubscription, key: string): boolean {
  const bytes = new Uint8Array(subscription.options.applicationServerKey ?? []);
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '') === key;
}

/** Waits for the worker: without an active one, a browser does not subscribe. */
async function active(registration: ServiceWorkerRegistration): Promise<ServiceWorkerRegistration> {
  const worker = registration.installing ?? registration.waiting;
  if (registration.active || !worker) return registration;
  await new Promise<void>((resolve, reject) => {
    worker.addEventListener('statechange', () => {
      if (worker.state === 'activated') resolve();
      if (worker.state === 'redundant') reject(new Error('The service worker could not be installed.'));
    });
  });
  return registration;
}
