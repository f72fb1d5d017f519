// One connection for all stores of a client, open while one of them has a subscriber.

import type { Link } from '../public/tocsin-client.js';
import type { Api } from '../shared/api.js';
import { identify } from '../shared/identity.js';
import { type Listener, Session } from '../shared/session.js';
import { Stream } from '../shared/stream.js';

const GRACE = 1_000; // milliseconds; a page that replaces one view by another keeps the connection

interface Connection {
  start(): void;
  /** The credentials changed. */
  renewed(): Promise<void>;
  close(): void;
}

export class Live {
  readonly #listeners = new Set<Listener>();
  #connection: Connection | null = null;
  #link: Link = 'connecting';
  #badge = '';
  /** How often the person may have changed: what a store loaded before is of another one. */
  turns = 0;

  constructor(private readonly api: Api) {}

  /** Passes events to the listener until the returned function is called; first the present state. */
  add(listener: Listener): () => void {
    this.#listeners.add(listener);
    if (this.#connection === null) this.#open();
    else {
      listener.link(this.#link);
      if (this.#badge) listener.event('badge', this.#badge);
    }
    return () => {
      this.#listeners.delete(listener);
      setTimeout(() => this.#listeners.size > 0 || this.close(), GRACE);
    };
  }

  renewed(): void {
    if (this.#connection) void this.#connection.renewed();
    else this.turns++;
  }

  close(): void {
    this.#connection?.close();
    this.#connection = null;
    this.#link = 'connecting';
    this.#badge = '';
  }

  #open(): void {
    const all: Listener = {
      event: (name, data) => {
        if (name === 'badge') this.#badge = data;
        for (const each of this.#listeners) each.event(name, data);
      },
      link: (link) => {
        this.#link = link;
        for (const each of this.#listeners) each.link(link);
      },
      missed: () => this.#listeners.forEach((each) => each.missed()),
      forget: () => {
        this.turns++;
        this.#badge = '';
        this.#link = 'connecting';
        for (const each of this.#listeners) each.forget();
      },
    };
    this.#connection = 'document' in globalThis ? new Session(this.api, all) : new OwnStream(this.api, all);
    this.#connection.start();
  }
}

/** Outside browsers there are no tabs to share a connection with. */
class OwnStream implements Connection {
  #closing = new AbortController();
  #who: string | null = null;
  #link: Link = 'connecting';

  constructor(
    private readonly api: Api,
    private readonly listener: Listener,
  ) {}

  start(): void {
    let begun = false;
    const stream = new Stream(this.api, '', {
      check: async () => void (this.#who = await identify(this.api)),
      events: (events) => {
        if (!begun) this.listener.missed(); // a list that was loaded before the stream began
        begun = true;
        for (const { event, data } of events) this.listener.event(event, data);
      },
      link: (link) => {
        if (link !== this.#link) this.listener.link((this.#link = link));
      },
    });
    const watch = setInterval(() => stream.watch(), 1_000);
    this.#closing.signal.addEventListener('abort', () => clearInterval(watch));
    void stream.run(this.#closing.signal);
  }

  /** The stream of the same person goes on, until the token that it was opened with expires. */
  async renewed(): Promise<void> {
    const who = await identify(this.api).catch(() => null);
    if (who === this.#who && this.#link === 'live') return;
    this.close();
    this.#closing = new AbortController();
    this.#link = 'connecting';
    if (who !== this.#who) this.listener.forget();
    this.start();
  }

  close(): void {
    this.#closing.abort();
  }
}
