// Values that change, as immutable snapshots, for any framework.

import type {
  Count,
  Inbox as InboxStore,
  InboxFilter,
  InboxState,
  Link,
  Notification,
  Store,
} from '../public/tocsin-client.js';
import type { Api } from '../shared/api.js';
import { NotificationList } from './notification_list.js';
import type { Live } from './live.js';

/** A value that is made again after changes, and is live while it has subscribers. */
abstract class LiveStore<Value> implements Store<Value> {
  readonly #subscribers = new Set<() => void>();
  #value: { current: Value } | null = null;
  #stale = true;
  #leave = () => {};
  #turn = 0;

  constructor(
    private readonly live: Live,
    protected readonly inbox: NotificationList,
  ) {}

  readonly get = (): Value => {
    this.#follow();
    if (this.#value === null || this.#stale) this.#value = { current: this.make(this.#value?.current) };
    this.#stale = false;
    return this.#value.current;
  };

  readonly subscribe = (changed: () => void): (() => void) => {
    const subscriber = () => changed(); // the same function may subscribe twice
    this.#subscribers.add(subscriber);
    if (this.#subscribers.size === 1) this.start();
    return () => {
      if (this.#subscribers.delete(subscriber) && this.#subscribers.size === 0) this.#leave();
    };
  };

  /** Returns the previous value if nothing changed. */
  protected abstract make(previous: Value | undefined): Value;

  protected start(): void {
    const { inbox } = this;
    this.#follow();
    this.#leave = this.live.add({
      event: (name, data) => inbox.take(name, data),
      missed: () => inbox.missed(),
      forget: () => {
        this.#follow();
        this.changed();
      },
      link: (link) => this.connect(link),
    });
  }

  protected connect(link: Link): void {
    this.inbox.connect(link);
  }

  /** Forgets what it loaded if another person may have signed in while it had no subscribers. */
  #follow(): void {
    if (this.#turn === this.live.turns) return;
    this.#turn = this.live.turns;
    this.inbox.forget();
    this.#stale = true;
  }

  protected readonly changed = (): void => {
    this.#stale = true;
    for (const subscriber of [...this.#subscribers]) subscriber();
  };
}

export class BadgeStore extends LiveStore<Count | null> {
  constructor(api: Api, live: Live) {
    super(live, new NotificationList(api, () => this.changed()));
  }

  protected make(previous: Count | null | undefined): Count | null {
    const { count, unseen } = this.inbox;
    if (count === null || unseen === null) return null;
    return previous?.count === count && previous.unseen === unseen ? previous : { count, unseen };
  }
}

export class ListStore extends LiveStore<InboxState> implements InboxStore {
  #copies = new Map<number, Notification>();

  constructor(api: Api, live: Live, { category = '', unreadOnly = false, archived = false }: InboxFilter) {
    const inbox = new NotificationList(api, () => this.changed());
    super(live, Object.assign(inbox, { category, unreadOnly, archived }));
  }

  reload = (): Promise<void> => this.inbox.load();
  loadMore = (): Promise<void> => this.inbox.loadMore();
  markRead = async (id: number): Promise<void> => this.inbox.setRead(this.#item(id), true);
  markUnread = async (id: number): Promise<void> => this.inbox.setRead(this.#item(id), false);
  archive = async (id: number): Promise<void> => this.inbox.archive(this.#item(id));
  unarchive = async (id: number): Promise<void> => this.inbox.unarchive(this.#item(id));
  seen = (): Promise<void> => this.inbox.seen();
  archiveAll = (): Promise<number> => this.inbox.archiveAll();
  markAllRead = (): Promise<number> => this.inbox.markAll();
  undo = (): Promise<void> => this.inbox.undo();

  protected make(): InboxState {
    const { inbox } = this;
    const { count, unseen, more, link, marked, done, listing } = inbox;
    const items = inbox.items.map((item) => this.#copy(item));
    this.#copies = new Map(items.map((item) => [item.id, item]));
    return { items, count, unseen, more, link, marked, done, status: listing === 'new' ? 'loading' : listing };
  }

  protected override start(): void {
    super.start();
    void this.inbox.load();
  }

  protected override connect(link: Link): void {
    super.connect(link);
    if (link === 'live' && this.inbox.listing === 'new') void this.inbox.load();
  }

  /** The same object as before if nothing changed in it, so that a view of it need not be drawn again. */
  #copy(item: Notification): Notification {
    const known = this.#copies.get(item.id);
    const keys = Object.keys(item) as (keyof Notification)[];
    return known && keys.every((key) => known[key] === item[key]) ? known : { ...item };
  }

  #item(id: number): Notification {
    const found = this.inbox.items.find((item) => item.id === id);
    if (found === undefined) throw new RangeError(`Notification ${id} is not in the loaded list; client.markRead(${id}) needs none.`);
    return found;
  }
}
