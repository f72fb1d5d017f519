// A list of notifications in this tab: the count, and the loaded part of the list, newest first.

import type { Count, Done, Link, Notification } from '../public/tocsin-client.js';
import { type Api, Problem } from '../shared/api.js';

export type Listing = 'new' | 'loading' | 'ready' | 'failed';

interface Page {
  results: Notification[];
  next: string | null;
  as_of: string;
}

type Change = 'read' | 'unread' | 'archived' | 'unarchived';

const PAGE = 20;
const MOST = 100; // of a page

const CONFIRMED = 10_000; // milliseconds in which the stream reports what was done here, also where it is late

export class NotificationList {
  link: Link = 'connecting';
  listing: Listing = 'new';
  items: Notification[] = []; // the newest first
  more = false;
  category = '';
  unreadOnly = false;
  archived = false;
  /** What was done last, while it can be undone. */
  done: Done | null = null;

  #reported: Count | null = null; // from the service
  readonly #ahead = new Map<number, { change: Change; n: number }>(); // changes made here that the service has not reported yet, by notification
  #cursor: string | null = null;
  #asOf: string | null = null;
  #underWay: Promise<unknown> | undefined;
  #whole: Promise<unknown> | undefined; // the last change of all
  readonly #last = new WeakMap<Notification, Promise<unknown>>(); // the last change of each
  #undo: (() => Promise<unknown>) | null = null;
  #loading: Promise<void> | undefined;
  #loads = 0;
  #meanwhile: [name: string, received: any][] = []; // events of the stream since the load of a page began, which it may lack

  constructor(
    private readonly api: Api,
    private readonly changed: () => void,
  ) {}

  /** The number of unread notifications; null while it is not known. */
  get count(): number | null {
    if (this.#reported === null) return null;
    let { count } = this.#reported;
    for (const { n } of this.#ahead.values()) count += n;
    return Math.max(0, count);
  }

  /** How many of them came after the list that the person saw last; null while it is not known. */
  get unseen(): number | null {
    return this.#reported && Math.min(this.#reported.unseen, this.count ?? 0);
  }

  /** How many the last mark-all marked, while it can be undone. */
  get marked(): number {
    return this.done?.what === 'all-read' ? this.done.n : 0;
  }

  /** Loads as many as are shown for the current filter, a page at least, and replaces the list. */
  load(): Promise<void> {
    return (this.#loading = this.#load());
  }

  async #load(): Promise<void> {
    const load = ++this.#loads;
    this.listing = 'loading';
    this.#meanwhile = [];
    this.changed();
    try {
      const page = await this.#page(null, Math.min(MOST, Math.max(PAGE, this.items.length)));
      if (load !== this.#loads) return;
      const known = new Map(this.items.map((item) => [item.id, item]));
      // what was changed here meanwhile stays so: the page may be older
      const news = page.results.filter(({ id }) => known.has(id) || !this.#ahead.has(id));
      this.items = news.map((item) => (this.#ahead.has(item.id) ? known.get(item.id)! : Object.assign(known.get(item.id) ?? item, item)));
      this.#asOf = page.as_of;
      this.#cursor = cursorOf(page.next);
      this.more = this.#cursor !== null;
      this.listing = 'ready';
      for (const [name, received] of this.#meanwhile) this.#apply(name, received);
    } catch (error) {
      if (load !== this.#loads) return;
      this.listing = 'failed';
      this.#refused(error);
    }
    this.changed();
  }

  /** Loads the next older ones; throws Problem. */
  async loadMore(): Promise<void> {
    await this.#loading;
    const load = this.#loads;
    if (this.listing !== 'ready' || this.#cursor === null) return;
    const from = this.#cursor;
    this.#cursor = null; // requested once
    try {
      const page = await this.#page(from);
      if (load !== this.#loads) return await this.loadMore();
      const known = new Set(this.items.map((item) => item.id));
      this.items.push(...page.results.filter((item) => !known.has(item.id)));
      this.#cursor = cursorOf(page.next);
      this.more = this.#cursor !== null;
    } catch (error) {
      this.#cursor = from;
      throw error;
    } finally {
      this.changed();
    }
  }

  async show(filter: { category?: string; unreadOnly?: boolean; archived?: boolean }): Promise<void> {
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
    const call = this.#inOrder(item, () => this.api.json('PATCH', `notifications/${item.id}/read/`, { read }, { keepalive: true }));
    const change = { change: read ? 'read' : 'unread', n: item.archived ? 0 : read ? -1 : 1 } as const;
    await this.#settle(item, change, call, () => (item.read = !read));
    this.#remember({ what: read ? 'read' : 'unread', n: 1 }, () => this.setRead(item, !read));
  }

  /** Takes it out of the inbox. */
  async archive(item: Notification): Promise<void> {
    await this.#setArchived(item, true);
  }

  /** Brings it back into the inbox. */
  async unarchive(item: Notification): Promise<void> {
    await this.#setArchived(item, false);
  }

  async #setArchived(item: Notification, archived: boolean): Promise<void> {
    if (item.archived === archived) return;
    this.#forgetUndo();
    const at = this.items.indexOf(item);
    if (archived !== this.archived) this.items = this.items.filter((each) => each !== item);
    else this.#insert(item);
    item.archived = archived;
    const call = this.#inOrder(item, () => this.api.json('PATCH', `notifications/${item.id}/`, { archived }));
    const change = { change: archived ? 'archived' : 'unarchived', n: item.read ? 0 : archived ? -1 : 1 } as const;
    await this.#settle(item, change, call, () => {
      item.archived = !archived;
      if (at >= 0) this.items.splice(at, 0, item);
      else this.items = this.items.filter((each) => each !== item);
    });
    this.#remember({ what: archived ? 'archived' : 'unarchived', n: 1 }, () => this.#setArchived(item, !archived));
  }

  /** Sends a change after the previous ones of the same notification, which it could overtake otherwise. */
  #inOrder(item: Notification, send: () => Promise<unknown>): Promise<unknown> {
    const call = Promise.allSettled([this.#whole, this.#last.get(item)]).then(send);
    this.#last.set(item, call);
    return call;
  }

  /** Counts it at once; after the stream has reported it, or should have, the service's own count is used again. */
  async #settle({ id }: Notification, change: { change: Change; n: number }, call: Promise<unknown>, takeBack: () => void): Promise<void> {
    this.#ahead.set(id, change);
    this.#underWay = Promise.allSettled([this.#underWay, call]);
    this.changed();
    try {
      await call;
      setTimeout(() => this.#caughtUp([id], change), CONFIRMED);
    } catch (error) {
      if (this.#ahead.get(id) === change) this.#ahead.delete(id);
      takeBack();
      this.changed();
      throw error;
    }
  }

  #caughtUp(ids: readonly number[], change?: object): void {
    for (const id of ids) if (change === undefined || this.#ahead.get(id) === change) this.#ahead.delete(id);
    this.changed();
  }

  /** Marks what the list could show as seen: it stays unread, and is not counted by `unseen` any more. */
  async seen(): Promise<void> {
    const as_of = await this.#listAsOf();
    const before = this.#reported;
    const found = await this.api.json<Count>('POST', 'notifications/seen/', { as_of });
    if (before === this.#reported) this.#reported = found; // else the stream has reported a later one
    this.changed();
  }

  /** Marks what the list could show, nothing later. Returns how many. */
  async markAll(): Promise<number> {
    return this.#all('all-read');
  }

  /** Takes what the list could show out of the inbox, nothing later. Returns how many. */
  async archiveAll(): Promise<number> {
    return this.#all('all-archived');
  }

  async #all(what: 'all-read' | 'all-archived'): Promise<number> {
    const sent = Promise.allSettled([this.#whole, this.#underWay]).then(async () => {
      // the earlier changes are in it
      const body = { as_of: await this.#listAsOf(), ...(this.category && { category: this.category }) };
      return this.api.call('POST', `notifications/${what === 'all-read' ? 'mark-all-read' : 'archive-all'}/`, body);
    });
    this.#whole = sent;
    const response = await sent;
    const found = (await response.json()) as { marked?: number; archived?: number };
    const n = found.marked ?? found.archived ?? 0;
    const undo = response.headers.get('Tocsin-Undo');
    if (n > 0) this.#remember({ what, n }, () => (this.#whole = this.api.json('POST', 'notifications/undo/', { undo })));
    return n;
  }

  async #listAsOf(): Promise<string> {
    return (this.#asOf ??= (await this.#page(null, 1)).as_of);
  }

  /** Takes back what was done last, as far as nothing changed it since. */
  async undo(): Promise<void> {
    const undo = this.#undo;
    this.#forgetUndo();
    await undo?.();
    this.#forgetUndo();
  }

  #remember(done: Done, undo: () => Promise<unknown>): void {
    this.done = done;
    this.#undo = undo;
    this.changed();
  }

  #forgetUndo(): void {
    this.done = null;
    this.#undo = null;
    this.changed();
  }

  /** One event of the stream. */
  take(name: string, data: string): void {
    const received = JSON.parse(data || '{}');
    if (name === 'badge') this.#reported = received;
    else if (name === 'resync') this.missed();
    else {
      this.#apply(name, received);
      if (this.listing === 'loading') this.#meanwhile.push([name, received]);
    }
    this.changed();
  }

  #apply(name: string, received: any): void {
    if (name === 'notification') this.#arrive(received);
    else if (name === 'action') {
      for (const item of this.items) if (item.id === received.id) item.acted = received.acted;
    } else if (name === 'read') this.#change(received.read ? 'read' : 'unread', received.ids);
    else if (name === 'archived' || name === 'unarchived') this.#change(name, received.ids);
  }

  /** Applies a change that the service reports; not what a later change made here has overtaken. */
  #change(change: Change, named: number[] | 'all'): void {
    const all = named === 'all' ? this.items.map((item) => item.id) : named;
    const ids = new Set(all.filter((id) => (this.#ahead.get(id)?.change ?? change) === change));
    if (change === 'read' || change === 'unread') {
      for (const item of this.items) if (ids.has(item.id)) item.read = change === 'read';
    } else if ((change === 'archived') !== this.archived) this.items = this.items.filter((item) => !ids.has(item.id));
    else {
      for (const item of this.items) ids.delete(item.id);
      if (ids.size > 0) this.missed(); // they have their place in this list
    }
    this.#caughtUp(all.filter((id) => this.#ahead.get(id)?.change === change));
  }

  forget(): void {
    this.#loads++;
    this.#reported = null;
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
    this.changed();
  }

  #arrive(item: Notification): void {
    this.#asOf = null;
    const known = this.items.find((each) => each.id === item.id);
    if (known) Object.assign(known, item);
    else {
      const fits = !this.archived && (!this.category || item.category === this.category) && !(this.unreadOnly && item.read);
      if (this.listing === 'ready' && fits) this.#insert(item);
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
    if (this.archived) query.set('archived', 'true');
    return this.api.json<Page>('GET', `notifications/?${query}`);
  }
}

/** The cursor in the URL of another page. */
export function cursorOf(page: string | null): string | null {
  return page === null ? null : new URLSearchParams(page.split('?')[1]).get('cursor');
}
