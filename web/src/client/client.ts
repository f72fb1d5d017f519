// One person's notifications, without any looks.

import type * as Public from '../public/tocsin-client.js';
import { Api } from '../shared/api.js';
import { Credentials } from '../shared/credentials.js';
import { events } from './events.js';
import { cursorOf } from './notification_list.js';
import { Live } from './live.js';
import { BadgeStore, ListStore } from './store.js';

type Query = Record<string, string | number | boolean | undefined>;

export class Client implements Public.Client {
  readonly badge: Public.Store<Public.Count | null>;
  readonly #api: Api;
  readonly #live: Live;

  constructor({ api, fetch, ...credentials }: Public.ClientOptions) {
    this.#api = new Api(baseUrl(api), credentialsOf(credentials), fetch);
    this.#live = new Live(this.#api);
    this.badge = new BadgeStore(this.#api, this.#live);
  }

  inbox(filter: Public.InboxFilter = {}): Public.Inbox {
    return new ListStore(this.#api, this.#live, filter);
  }

  unreadCount(): Promise<Public.Count> {
    return this.request('GET', 'notifications/unread-count/');
  }

  async list(options: Public.ListOptions = {}): Promise<Public.NotificationPage> {
    return withCursors(await this.request<Public.NotificationPage>('GET', `notifications/${query({ ...options })}`));
  }

  async *all(filter: Public.Filter = {}): AsyncGenerator<Public.Notification> {
    const options: Public.ListOptions = { ...filter, limit: 100 };
    for (;;) {
      const { results, next } = await this.list(options);
      yield* results;
      if (next === null) return;
      options.cursor = next;
    }
  }

  async groups(options: Public.ListOptions = {}): Promise<Public.GroupPage> {
    return withCursors(await this.request<Public.GroupPage>('GET', `notifications/${query({ ...options, grouped: true })}`));
  }

  async groupMembers(groupKey: string, options: Public.PageOptions = {}): Promise<Public.NotificationPage> {
    const path = `notifications/${query({ ...options, group_key: groupKey })}`;
    return withCursors(await this.request<Public.NotificationPage>('GET', path));
  }

  readGroup(groupKey: string, options: { as_of?: string } = {}): Promise<Public.MarkedAll> {
    return this.#changeAll('PATCH', `groups/${groupKey}/read/`, options);
  }

  unreadGroup(groupKey: string, options: { as_of?: string } = {}): Promise<Public.MarkedAll> {
    return this.#changeAll('PATCH', `groups/${groupKey}/read/`, { ...options, read: false });
  }

  async archiveGroup(groupKey: string, options: { as_of?: string } = {}): Promise<{ undo: string | null }> {
    const response = await this.#api.call('DELETE', `notifications/groups/${groupKey}/${query(options)}`);
    return { undo: response.headers.get('Tocsin-Undo') };
  }

  get(id: number): Promise<Public.Notification> {
    return this.request('GET', `notifications/${id}/`);
  }

  why(id: number): Promise<Public.Why> {
    return this.request('GET', `notifications/${id}/why/`);
  }

  markRead(id: number): Promise<Public.Notification> {
    return this.request('PATCH', `notifications/${id}/read/`, { read: true });
  }

  markUnread(id: number): Promise<Public.Notification> {
    return this.request('PATCH', `notifications/${id}/read/`, { read: false });
  }

  archive(id: number): Promise<void> {
    return this.request('DELETE', `notifications/${id}/`);
  }

  unarchive(id: number): Promise<Public.Notification> {
    return this.request('PATCH', `notifications/${id}/`, { archived: false });
  }

  seen(as_of?: string): Promise<Public.Count> {
    return this.request('POST', 'notifications/seen/', { as_of });
  }

  markAllRead(options: Public.Choice = {}): Promise<Public.MarkedAll> {
    return this.#changeAll('POST', 'mark-all-read/', options);
  }

  archiveAll(options: Public.Choice & { read?: boolean } = {}): Promise<Public.ArchivedAll> {
    return this.#changeAll('POST', 'archive-all/', options);
  }

  async #changeAll<Changed>(method: string, path: string, options: object): Promise<Changed & { undo: string | null }> {
    const response = await this.#api.call(method, `notifications/${path}`, options);
    return { ...((await response.json()) as Changed), undo: response.headers.get('Tocsin-Undo') };
  }

  undo(undo: string): Promise<{ undone: number }> {
    return this.request('POST', 'notifications/undo/', { undo });
  }

  stream(options: Public.StreamOptions = {}): AsyncGenerator<Public.StreamEvent> {
    return events(this.#api, options);
  }

  async streamTicket(): Promise<Public.StreamTicket> {
    const made = await this.request<Omit<Public.StreamTicket, 'url'>>('POST', 'stream-ticket/');
    const url = new URL(`api/notifications/stream/${query({ ticket: made.ticket })}`, this.#api.base);
    return { ...made, url: url.href };
  }

  preferences(): Promise<Public.Preferences> {
    return this.request('GET', 'notification-preferences/');
  }

  setPreferences(overrides: Public.OverrideChanges): Promise<Public.Preferences> {
    return this.request('PATCH', 'notification-preferences/', { overrides });
  }

  digest(): Promise<Public.DigestPreferences> {
    return this.request('GET', 'digest-preferences/');
  }

  setDigest(changes: Public.DigestChanges): Promise<Public.DigestPreferences> {
    return this.request('PATCH', 'digest-preferences/', changes);
  }

  quietHours(): Promise<Public.QuietHours> {
    return this.request('GET', 'quiet-hours/');
  }

  setQuietHours(hours: Omit<Public.QuietHours, 'timezone'> & { timezone?: string }): Promise<Public.QuietHours> {
    return this.request('PUT', 'quiet-hours/', hours);
  }

  inboxPreferences(): Promise<Public.InboxPreferences> {
    return this.request('GET', 'inbox-preferences/');
  }

  setInboxPreferences(changes: Partial<Public.InboxPreferences>): Promise<Public.InboxPreferences> {
    return this.request('PATCH', 'inbox-preferences/', changes);
  }

  async eventTypes(locale?: string): Promise<Public.Category[]> {
    return (await this.request<{ results: Public.Category[] }>('GET', `event-types/${query({ locale })}`)).results;
  }

  async devices(): Promise<Public.Device[]> {
    return (await this.request<{ results: Public.Device[] }>('GET', 'push-tokens/')).results;
  }

  registerDevice(device: Public.NewDevice | Public.NewBrowser): Promise<Public.Device> {
    return this.request('POST', 'push-tokens/', device);
  }

  unregisterDevice(token: string): Promise<void> {
    return this.request('POST', 'push-tokens/unregister/', { token });
  }

  async subscriptions(options: Query = {}): Promise<Public.Page<Public.Subscription>> {
    return withCursors(await this.request<Public.Page<Public.Subscription>>('GET', `subscriptions/${query(options)}`));
  }

  subscribe(topic: string, level: Public.Level = 'all'): Promise<Public.Subscription> {
    return this.request('POST', 'subscriptions/', { topic, level });
  }

  unsubscribe(topic: string): Promise<void> {
    return this.request('DELETE', `subscriptions/${encodeURIComponent(topic)}/`);
  }

  request<Result>(method: string, path: string, body?: unknown): Promise<Result> {
    return this.#api.json<Result>(method, path, body);
  }

  signIn(credentials: Pick<Public.ClientOptions, 'token' | 'getToken'>): void {
    this.#api.credentials = credentialsOf(credentials);
    this.#live.renewed();
  }

  close(): void {
    this.#live.close();
  }
}

function baseUrl(api: string | URL): string {
  if (!URL.canParse(String(api), globalThis.document?.baseURI)) {
    throw new TypeError(`createClient: api has to be the URL of Tocsin, such as https://notify.example.com/, not '${api}'.`);
  }
  const { href } = new URL(api, globalThis.document?.baseURI);
  return href.endsWith('/') ? href : `${href}/`;
}

function credentialsOf({ token, getToken }: Pick<Public.ClientOptions, 'token' | 'getToken'>): Credentials {
  return new Credentials(token ?? null, getToken ?? null);
}

function query(values: object): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return given.length > 0 ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : '';
}

function withCursors<Found extends Public.Page<unknown>>(page: Found): Found {
  return { ...page, next: cursorOf(page.next), previous: cursorOf(page.previous) };
}
