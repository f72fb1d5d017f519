// The inbox in this tab: the count, and the loaded part of the list.

import type { Link, Notification } from '../public/tocsin-client.js';
import { type Api, Problem } from '../shared/api.js';

export type Listing = 'new' | 'loading' | 'ready' | 'failed';

interface Page {
  results: Notification[];
  next: string | null;
  as_of: string;
}

interface Listener {
  /** A public value changed. */
  changed(): void;
  arrived(notification: Notification): void;
}

const PAGE = 20;

const CONFIRMED = 2_000; // milliseconds in which the stream reports what was done here

export class Inbox {
  link: Link = 'connecting';
  listing: Listing = 'new';
  items: Notification[] = []; // the newest first
  more = false;
  category = '';
  unreadOnly = false;
  /** How many the last mark-all marked, while it can be undone. */
  marked = 0;

  #told: number | null = null; // from the service
  readonly #ahead = new Map<number, number>(); // changes made here that the service has not reported yet, by notification
  #cursor: string | null = null;
  #asOf: string | null = null;
  #underWay: Promise<unknown> = Promise.resolve();
  #undo: string | null = null;
  #loads = 0;

  constructor(
    private readonly api: Api,
    private readonly listener: Listener,
  ) {}

  /** The number of unread notifications; null while it is not known. */
  get count(): number | null {
    if (this.#told === null) return null;
    let count = this.#told;
    for (const n of this.#ahead.values()) count += n;
    return Math.max(0, count);
  }

  /** Loads the first page for the current filter, and replaces the list. */
  async load(): Promise<void> {
    const load = ++this.#loads;
    this.listing = 'loading';
    this.listener.changed();
    try {
      const page = await this.#page(null);
      if (load !== this.#loads) return;
      const known = new Map(this.items.map((item) => [item.id, item]));
      this.items = page.results.map((item) => Object.assign(known.get(item.id) ?? item, item));
      this.#asOf = page.as_of;
      this.#cursor = cursorOf(page.next);
      this.more = this.#cursor !== null;
      this.listing = 'ready';
    } catch (error) {
      if (load !== this.#loads) return;
      this.listing = 'failed';
      this.#refused(error);
    }
    this.listener.changed();
  }

  /** Loads the next older ones; throws Problem. */
  async loadMore(): Promise<void> {
    const load = this.#loads;
    if (this.listing !== 'ready' || this.#cursor === null) return;
    const from = this.#cursor;
    this.#cursor = null; // requested once
    try {
      const page = await this.#page(from);
      if (load !== this.#loads) return;
      const known = new Set(this.items.map((item) => item.id));
      this.items.push(...page.results.filter((item) => !known.has(item.id)));
      this.#cursor = cursorOf(page.next);
      this.more = this.#cursor !== null;
    } catch (error) {
      this.#cursor = from;
      throw error;
    } finally {
      this.listener.changed();
    }
  }

  async show(filter: { category?: string; unreadOnly?: boolean }): Promise<void> {
    Object.assign(this, filter);
    this.items = [];
    this.#forgetUndo();
    await this.load();
  }

  /** The list may be out of date: it is reloaded when the panel is opened. */
  missed(): void {
    if (this.listing !== 'new') void this.load();
  }

  /** Changes it here at once, then at the service; reverts it and throws if that fails. */
  async setRead(item: Notification, read: boolean): Promise<void> {
    if (item.read === read) return;
    this.#forgetUndo();
    item.read = read;
    // keepalive, since opening a notification leaves the page
    const call = this.api.json('PATCH', `notifications/${item.id}/read/`, { read }, { keepalive: true });
    await this.#settle(item, read ? -1 : 1, call, () => (item.read = !read));
  }

  async archive(item: Notification): Promise<void> {
    this.#forgetUndo();
    const at = this.items.indexOf(item);
    this.items.splice(at, 1);
    const call = this.api.json('DELETE', `notifications/${item.id}/`);
    await this.#settle(item, item.read ? 0 : -1, call, () => this.items.splice(at, 0, item));
  }

  /** Counts it at once; after the stream has reported it, or should have, the service's own count is used again. */
  async #settle({ id }: Notification, n: number, call: Promise<unknown>, takeBack: () => void): Promise<void> {
    this.#ahead.set(id, n);
    this.#underWay = Promise.allSettled([this.#underWay, call]);
    this.listener.changed();
    try {
      await call;
      setTimeout(() => this.#caughtUp([id]), CONFIRMED);
    } catch (error) {
      this.#ahead.delete(id);
      takeBack();
      this.listener.changed();
      throw error;
    }
  }

  #caughtUp(ids: readonly number[]): void {
    for (const id of ids) this.#ahead.delete(id);
    this.listener.changed();
  }

  /** Marks what the list could show, nothing later. Returns how many. */
  async markAll(): Promise<number> {
    await this.#underWay; // without those that were just archived
    this.#asOf ??= (await this.#page(null, 1)).as_of;
    const body = { as_of: this.#asOf, ...(this.category && { category: this.category }) };
    const answer = await this.api.call('POST', 'notifications/mark-all-read/', body);
    const { marked } = (await answer.json()) as { marked: number };
    this.marked = marked;
    this.#undo = answer.headers.get('Tocsin-Undo');
    this.listener.changed();
    return marked;
  }

  async undo(): Promise<void> {
    const undo = this.#undo;
    this.#forgetUndo();
    if (undo !== null) await this.api.json('POST', 'notifications/mark-all-read/undo/', { undo });
  }

  #forgetUndo(): void {
    this.marked = 0;
    this.#undo = null;
    this.listener.changed();
  }

  /** One event of the stream. */
  take(name: string, data: string): void {
    const told = JSON.parse(data || '{}');
    if (name === 'badge') this.#told = told.count;
    else if (name === 'notification') this.#arrive(told);
    else if (name === 'resync') this.missed();
    else {
      const ids: number[] = told.ids === 'all' ? this.items.map((item) => item.id) : told.ids;
      const named = new Set(ids);
      if (name === 'read') for (const item of this.items) if (named.has(item.id)) item.read = told.read;
      if (name === 'archived') this.items = this.items.filter((item) => !named.has(item.id));
      this.#caughtUp(ids);
    }
    this.listener.changed();
  }

  forget(): void {
    this.#loads++;
    this.#told = null;
    this.#ahead.clear();
    this.items = [];
    this.more = false;
    this.listing = 'new';
    this.#forgetUndo();
  }

  connect(link: Link): void {
    this.link = link;
    if (link === 'signed-out') this.forget();
    if (link === 'live' && this.listing === 'failed') void this.load();
    this.listener.changed();
  }

  #arrive(item: Notification): void {
    this.#asOf = null;
    const known = this.items.find((each) => each.id === item.id);
    if (known) Object.assign(known, item);
    else {
      const fits = (!this.category || item.category === this.category) && !(this.unreadOnly && item.read);
      if (this.listing === 'ready' && fits) this.#insert(item);
      this.listener.arrived(item);
    }
  }

  #insert(item: Notification): void {
    const at = this.items.findIndex((each) => each.created_at < item.created_at || (each.created_at === item.created_at && each.id < item.id));
    if (at >= 0) this.items.splice(at, 0, item);
    else if (!this.more) this.items.push(item);
  }

  #refused(error: unknown): void {
    if (error instanceof Problem && error.isSignedOut) this.link = 'signed-out';
  }

  #page(from: string | null, limit = PAGE): Promise<Page> {
    const query = new URLSearchParams({ limit: String(limit) });
    if (from !== null) query.set('cursor', from);
    if (this.category) query.set('category', this.category);
    if (this.unreadOnly) query.set('read', 'false');
    return this.api.json<Page>('GET', `notifications/?${query}`);
  }
}

/** The cursor in the URL of another page. */
export function cursorOf(page: string | null): string | null {
  return page === null ? null : new URLSearchParams(page.split('?')[1]).get('cursor');
}
