// The grouped inbox that the bell shows: the counts, the loaded groups, and what the person changes in them.

import { cursorOf } from '../client/notification_list.js';
import type { Count, Link, Notification } from '../public/tocsin-client.js';
import { type Api, Problem } from '../shared/api.js';
import { type Entry, entryOf, type Group, isSame, joins, merged, type Over } from './entry.js';

export type Listing = 'new' | 'loading' | 'ready' | 'failed';
export type Tab = 'all' | 'unread' | 'archived';
export type Done = 'marked' | 'markedUnread' | 'archived' | 'unarchive';

interface Page {
  results: (Group | Notification)[];
  next: string | null;
  as_of: string;
}

/** The last change, as long as it can be taken back. */
export interface Undoable {
  done: Done;
  n: number;
  back(): Promise<unknown>;
}

interface Listener {
  /** A value changed. */
  changed(): void;
  arrived(notification: Notification): void;
}

const PAGE = 20;
const MOST = 100; // of a page
const CONFIRMED = 10_000; // milliseconds in which the stream reports what was done here, also where it is late
const SOON = 150; // milliseconds; up to three times as long, so that not all bells ask at once

export class GroupedInbox {
  link: Link = 'connecting';
  listing: Listing = 'new';
  entries: Entry[] = []; // the newest first
  more = false;
  tab: Tab = 'all';
  category = '';
  undoable: Undoable | null = null;

  #badge: Count | null = null; // from the service
  readonly #ahead = new Map<number, number>(); // changes made here that the service has not reported yet, by notification
  #cursor: string | null = null;
  #asOf: string | null = null; // of the list
  #arrivedSince = false;
  #underWay: Promise<unknown> | undefined;
  #keys: Promise<unknown> | undefined; // until the list has the present keys of its groups
  #loading: Promise<void> | undefined;
  #loads = 0;
  #changes = 0;
  #soon: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly api: Api,
    private readonly listener: Listener,
  ) {}

  /** The number of unread notifications; null while it is not known. */
  get count(): number | null {
    if (this.#badge === null) return null;
    let { count } = this.#badge;
    for (const n of this.#ahead.values()) count += n;
    return Math.max(0, count);
  }

  /** How many of the unread ones came after the list that the person saw last. */
  get unseen(): number | null {
    return this.#badge && Math.min(this.#badge.unseen, this.count ?? 0);
  }

  /** Loads the list for the current filter, and replaces what is shown. */
  load(): Promise<void> {
    this.listing = 'loading';
    this.listener.changed();
    return (this.#loading = this.#refresh(true));
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
      if (load !== this.#loads) return this.loadMore();
      const found = page.results.map((each) => entryOf(each));
      this.entries.push(...found.filter((each) => !this.entries.some((known) => isSame(known, each))));
      this.#setCursor(page);
    } catch (error) {
      if (load === this.#loads) this.#cursor = from;
      throw error;
    } finally {
      this.listener.changed();
    }
  }

  async show(filter: { tab?: Tab; category?: string }): Promise<void> {
    Object.assign(this, filter);
    this.entries = [];
    this.forgetUndo();
    await this.load();
  }

  /** The list may be out of date: it is reloaded when the panel is opened. */
  missed(): void {
    if (this.listing !== 'new') void this.load();
  }

  /** Opens or closes a group in place; throws Problem. */
  async toggle(entry: Entry): Promise<void> {
    entry.open = !entry.open;
    this.listener.changed();
    try {
      if (entry.open && !entry.members) await this.loadMembers(entry);
    } catch (error) {
      entry.open = false;
      throw error;
    }
  }

  /** Loads the next older members of a group; without any, the first ones. Throws Problem. */
  async loadMembers(entry: Entry): Promise<void> {
    const query = new URLSearchParams({ group_key: entry.group_key, limit: String(PAGE) });
    if (entry.older) query.set('cursor', entry.older);
    const page = await this.api.json<Page>('GET', `notifications/?${query}`);
    const known = entry.older ? entry.members! : [];
    entry.members = [...known, ...page.results.map((each) => entryOf(each, entry))];
    entry.older = cursorOf(page.next);
    this.listener.changed();
  }

  /** Changes it here at once, then at the service; reverts it and throws if that fails. */
  async setRead(entry: Entry, read: boolean, undo = true): Promise<void> {
    const { latest, count, unread } = entry;
    if (read === (unread === 0)) return;
    const call = this.#inOrder(entry, () => {
      const [path, body] = count > 1 ? [`groups/${entry.group_key}`, { as_of: this.#asOf, read }] : [latest.id, { read }];
      // keepalive, since opening a notification leaves the page
      return this.api.call('PATCH', `notifications/${path}/read/`, body, { keepalive: true });
    });
    const revert = this.#setUnread(entry, read ? 0 : count);
    const back = count > 1 ? () => this.#takeBack(call) : () => this.setRead(entry, !read, false);
    if (undo) this.#offerUndo(read ? 'marked' : 'markedUnread', read ? unread : count, back);
    const settled = this.#settle(entry, read ? -unread : count, call, revert);
    await (count > 1 ? this.#renewKeys(settled) : settled);
  }

  /** Takes it out of the inbox, or out of the archive. */
  async archive(entry: Entry): Promise<void> {
    const { latest, count, unread } = entry;
    const archived = this.tab !== 'archived';
    const send = (archived: boolean) => this.#inOrder(entry, () => this.api.call('PATCH', `notifications/${latest.id}/`, { archived }));
    const call =
      count > 1
        ? this.#inOrder(entry, () => this.api.call('DELETE', `notifications/groups/${entry.group_key}/?as_of=${this.#asOf}`))
        : send(archived);
    const revert = this.#remove(entry);
    const bringBack = () => {
      revert();
      return this.#settle(entry, archived ? unread : -unread, send(!archived), () => this.#remove(entry));
    };
    this.#offerUndo(archived ? 'archived' : 'unarchive', count, count > 1 ? () => this.#takeBack(call) : bringBack);
    await this.#settle(entry, archived ? -unread : unread, call, revert);
  }

  /** The person sees the list: what it could show counts as seen, on all devices. */
  async seen(): Promise<void> {
    const as_of = this.#arrivedSince ? undefined : (this.#asOf ?? undefined);
    if (this.unseen === 0) return;
    const before = this.#badge;
    const found = await this.api.json<Count>('POST', 'notifications/seen/', { as_of });
    if (before === this.#badge) this.#badge = found; // else the stream has reported a later one
    this.listener.changed();
  }

  /** Presses a button. The first press counts, on whatever device: what it was is shown then. Throws Problem otherwise. */
  async press(entry: Entry, key: string): Promise<boolean> {
    const { latest } = entry;
    entry.pressing = key;
    this.forgetUndo();
    try {
      const call = this.api.json<Notification>('POST', `notifications/${latest.id}/actions/${key}/`);
      const revert = this.#setUnread(entry, entry.unread && entry.unread - 1);
      await this.#settle(entry, latest.read ? 0 : -1, call, revert);
      Object.assign(latest, await call);
      return true;
    } catch (error) {
      if (!(error instanceof Problem && error.status === 409 && error.reason)) throw error;
      if (error.reason === 'chosen') Object.assign(latest, await this.api.json<Notification>('GET', `notifications/${latest.id}/`));
      else entry.over = error.reason as Over;
      return false;
    } finally {
      entry.pressing = null;
      this.listener.changed();
    }
  }

  /** Marks what the list could show, nothing later. Returns how many. */
  async markAll(): Promise<number> {
    this.forgetUndo();
    await this.#underWay; // without those that were just archived
    const as_of = this.#arrivedSince ? (await this.#page(null, 1)).as_of : this.#asOf;
    const body = { as_of, ...(this.category && { category: this.category }) };
    const call = (this.#keys = this.api.call('POST', 'notifications/mark-all-read/', body)); // later changes come after it
    const { marked } = (await (await call).json()) as { marked: number };
    if (marked > 0) this.#offerUndo('marked', marked, () => this.#takeBack(call));
    return marked;
  }

  async undo(): Promise<void> {
    const back = this.undoable?.back;
    this.forgetUndo();
    await this.#underWay; // so that the service has something to take back
    await back?.();
  }

  forgetUndo(): void {
    this.undoable = null;
    this.listener.changed();
  }

  /** One event of the stream. */
  take(name: string, data: string): void {
    const received = JSON.parse(data || '{}');
    if (name === 'badge') this.#badge = received;
    else this.#changes++;
    if (name === 'notification') this.#arrive(received);
    else if (name === 'resync') this.missed();
    else if (name === 'action') this.#acted(received);
    else if (received.ids !== undefined) this.#changed(name, received.ids, received.read);
    this.listener.changed();
  }

  forget(): void {
    this.#loads++;
    this.#badge = null;
    this.#ahead.clear();
    this.entries = [];
    this.more = false;
    this.listing = 'new';
    this.forgetUndo();
  }

  connect(link: Link): void {
    this.link = link;
    if (link === 'signed-out') this.forget();
    this.listener.changed();
  }

  /** Takes back a change of many. */
  async #takeBack(call: Promise<Response>): Promise<void> {
    const undo = (await call).headers.get('Tocsin-Undo');
    await this.#renewKeys(this.api.json('POST', 'notifications/undo/', { undo }));
  }

  /** Sends a change after the previous ones of the same row, which it could overtake otherwise. */
  #inOrder(entry: Entry, send: () => Promise<Response>): Promise<Response> {
    return (entry.sent = Promise.allSettled([this.#keys, entry.sent]).then(send));
  }

  /** Loads the list after a change that gives groups other keys; further changes of groups wait for it. */
  #renewKeys(change: Promise<unknown>): Promise<unknown> {
    this.#keys = change.then(() => (this.listing === 'ready' ? this.#refresh(true) : undefined), () => {});
    return change;
  }

  /** Takes a row out of the list or out of its group; returns the way back. */
  #remove(entry: Entry): () => void {
    const { parent } = entry;
    const rows = () => parent?.members ?? this.entries; // they may have been replaced when it comes back
    const at = rows().indexOf(entry);
    if (at >= 0) rows().splice(at, 1);
    if (parent) this.#resize(parent, -1, -entry.unread);
    return () => {
      if (at >= 0) rows().splice(at, 0, entry);
      if (parent) this.#resize(parent, 1, entry.unread);
    };
  }

  #resize(group: Entry, count: number, unread: number): void {
    group.count += count;
    group.unread += unread;
    if (group.count < 2) this.#refreshSoon(); // it is no group any more
  }

  #offerUndo(done: Done, n: number, back: () => Promise<unknown>): void {
    this.undoable = { done, n, back };
    this.listener.changed();
  }

  /** Changes the badge by `n` at once; after the stream has reported it, or should have, the service's own count is used again. */
  async #settle({ latest }: Entry, n: number, call: Promise<unknown>, revert: () => void): Promise<void> {
    this.#changes++;
    this.#count(latest.id, n);
    this.#underWay = Promise.allSettled([this.#underWay, call]);
    this.listener.changed();
    try {
      await call;
      setTimeout(() => this.#caughtUp([latest.id]), CONFIRMED);
    } catch (error) {
      this.#count(latest.id, -n);
      revert();
      this.forgetUndo();
      throw error;
    }
  }

  #count(id: number, n: number): void {
    this.#ahead.set(id, (this.#ahead.get(id) ?? 0) + n);
  }

  #caughtUp(ids: readonly number[]): void {
    for (const id of ids) this.#ahead.delete(id);
    this.listener.changed();
  }

  /** Sets how many of a row are unread, in its group and in its members too; returns the way back. */
  #setUnread(entry: Entry, unread: number): () => void {
    const { parent, members } = entry;
    const before = [entry, ...(members ?? [])].map((row) => [row, row.unread] as const);
    const set = (row: Entry, n: number) => {
      if (row === entry && parent) parent.unread += n - row.unread;
      row.unread = n;
      row.latest.read = n === 0;
    };
    for (const [row] of before) set(row, row === entry ? unread : Math.min(unread, 1));
    return () => before.forEach(([row, n]) => set(row, n));
  }

  /** All rows, with those of open groups. */
  #rows(): Entry[] {
    return this.entries.flatMap((entry) => [entry, ...(entry.members ?? [])]);
  }

  /** Read, unread or archived, here or on another device. */
  #changed(name: string, changed: number[] | 'all', read: boolean): void {
    const rows = this.#rows();
    const ids = changed === 'all' ? rows.map(({ latest }) => latest.id) : changed;
    const named = new Set(ids);
    if (name === 'read') {
      for (const row of rows) {
        const { id } = row.latest;
        // what was changed here may have been changed again since
        if (row.count === 1 && named.has(id)) this.#ahead.has(id) || this.#setUnread(row, read ? 0 : 1);
        else if (changed === 'all') this.#setUnread(row, read ? 0 : row.count);
      }
    } else if (name === (this.tab === 'archived' ? 'unarchived' : 'archived')) {
      // what was changed here may have been taken back since
      this.entries = this.entries.filter(({ count, latest: { id } }) => count > 1 || !named.has(id) || this.#ahead.has(id));
    }
    const unclear = name !== 'read' || this.entries.some(({ count }) => count > 1);
    const elsewhere = changed !== 'all' && changed.some((id) => !this.#ahead.has(id));
    if (elsewhere && unclear) this.#refreshSoon();
    this.#caughtUp(ids);
  }

  #acted({ id, acted }: { id: number; acted: Notification['acted'] }): void {
    for (const { latest } of this.#rows()) if (latest.id === id) latest.acted = acted;
  }

  #arrive(item: Notification): void {
    this.#arrivedSince = true;
    const known = this.#rows().find(({ latest }) => latest.id === item.id);
    if (known) {
      Object.assign(known.latest, item);
      return;
    }
    const fits = (!this.category || item.category === this.category) && !(this.tab === 'unread' && item.read);
    if (this.listing === 'ready' && fits && this.tab !== 'archived') {
      // the service states what the group is called now
      if (this.entries.some((entry) => joins(entry, item))) this.#refreshSoon(item);
      else this.#insert(item);
    }
    this.listener.arrived(item);
  }

  #insert(item: Notification): void {
    const at = this.entries.findIndex(({ latest }) => latest.created_at < item.created_at || (latest.created_at === item.created_at && latest.id < item.id));
    if (at >= 0) this.entries.splice(at, 0, entryOf(item));
    else if (!this.more) this.entries.push(entryOf(item));
  }

  /** Loads the visible part again without showing it; what arrived is a row of its own if that fails. */
  #refreshSoon(arrived?: Notification): void {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(async () => {
      await this.#underWay;
      if (this.listing === 'ready') await this.#refresh(false, arrived);
    }, SOON * (1 + 2 * Math.random()));
  }

  /** Loads the visible part again. `always`: shows it also where something came meanwhile that it may lack, until it is loaded again. */
  async #refresh(always: boolean, arrived?: Notification): Promise<void> {
    const [load, changes] = [++this.#loads, this.#changes];
    try {
      const page = await this.#page(null, Math.min(MOST, Math.max(PAGE, this.entries.length)));
      if (load !== this.#loads) return;
      if (always || changes === this.#changes) this.#replace(page);
      if (changes !== this.#changes) this.#refreshSoon(arrived);
    } catch (error) {
      if (load !== this.#loads) return;
      if (this.listing === 'loading') {
        this.listing = 'failed';
        if (error instanceof Problem && error.isSignedOut) this.link = 'signed-out';
      } else if (arrived) this.#insert(arrived);
    }
    this.listener.changed();
  }

  #replace(page: Page): void {
    const known = [...this.entries];
    this.entries = page.results.map((each) => {
      const found = entryOf(each);
      const at = known.findIndex((entry) => isSame(entry, found));
      if (at < 0) return found;
      const entry = known.splice(at, 1)[0]!;
      const grew = entry.open && entry.count !== found.count;
      merged(entry, found);
      if (grew) this.#reloadMembers(entry);
      return entry;
    });
    this.#asOf = page.as_of;
    this.#arrivedSince = false;
    this.#setCursor(page);
    this.listing = 'ready';
  }

  #reloadMembers(entry: Entry): void {
    entry.older = null;
    if (entry.count < 2) entry.open = false;
    else this.loadMembers(entry).catch(() => {}); // those that are loaded stay
  }

  #setCursor(page: Page): void {
    this.#cursor = cursorOf(page.next);
    this.more = this.#cursor !== null;
  }

  #page(from: string | null, limit = PAGE): Promise<Page> {
    const query = new URLSearchParams({ limit: String(limit) });
    if (from !== null) query.set('cursor', from);
    if (this.category) query.set('category', this.category);
    if (this.tab === 'unread') query.set('read', 'false');
    query.set(this.tab === 'archived' ? 'archived' : 'grouped', 'true');
    return this.api.json<Page>('GET', `notifications/?${query}`);
  }
}
