// One person's live inbox in one tab: receives the stream's events, in whichever tab the stream is.

import type { Link } from '../public/tocsin-client.js';
import { type Api, Problem } from './api.js';
import { identify } from './identity.js';
import type { ServerEvent } from './sse.js';
import { Stream } from './stream.js';
import { Tabs } from './tabs.js';

type Message =
  /** The events that the leader received, and the last event before them. */
  | { kind: 'events'; before: string; events: ServerEvent[] }
  | { kind: 'link'; link: Link }
  /** Requests a reply of the leader, if there is one. */
  | { kind: 'ask' }
  | { kind: 'now'; lastId: string; link: Link; badge: string };

export interface Listener {
  event(name: string, data: string): void;
  link(link: Link): void;
  /** Events were missed: the list may be out of date. */
  missed(): void;
  /** The person signed out, or another one signed in. */
  forget(): void;
}

const REPLY_WITHIN = 400; // milliseconds in which an open tab must reply
const ASK_EACH = 20; // seconds
const SLEPT = 4_000; // milliseconds; a timer of a second that took this long means that the machine slept

export class Session {
  #who: string | null = null;
  #tabs: Tabs<Message> | null = null;
  #stream: Stream | null = null;
  #lastId = '';
  #badge = '';
  #link: Link = 'connecting';
  #closing = new AbortController();
  #replied = () => {};

  constructor(
    private readonly api: Api,
    private readonly listener: Listener,
  ) {}

  start(): void {
    const { signal } = this.#closing;
    const wake = () => document.visibilityState === 'visible' && void this.#wake();
    document.addEventListener('visibilitychange', wake, { signal });
    addEventListener('online', () => this.#wake(true), { signal });
    addEventListener('offline', () => this.#report('offline'), { signal });
    addEventListener('pagehide', () => this.#leave(), { signal }); // otherwise the browser can't keep the page for "back"
    addEventListener('pageshow', ({ persisted }) => persisted && void this.#join(), { signal });
    const clock = setInterval(() => this.#tick(), 1_000);
    signal.addEventListener('abort', () => clearInterval(clock));
    void this.#join();
  }

  /** The credentials changed, perhaps to another person's. */
  async renewed(): Promise<void> {
    if (this.#tabs === null) return this.#join();
    if (!(await this.#isSame())) this.#startOver();
    else if (this.#link === 'signed-out') this.#stream?.wake(true);
  }

  close(): void {
    this.#closing.abort();
    this.#leave();
  }

  /** Joins the tabs of this person; retries as long as the person is unknown. */
  async #join(pause = 1_000): Promise<void> {
    const { credentials } = this.api;
    // with other credentials, another call joins
    const isOver = () => this.#closing.signal.aborted || this.#tabs !== null || credentials !== this.api.credentials;
    try {
      const who = await identify(this.api);
      if (isOver()) return;
      if (this.#who && this.#who !== who) this.#forget(); // who left the page by it, and came back to it, may be another person
      this.#who = who;
    } catch (error) {
      if (isOver()) return;
      const out = error instanceof Problem && error.isSignedOut;
      this.#report(out ? 'signed-out' : 'offline');
      if (!out) setTimeout(() => this.#closing.signal.aborted || this.#join(Math.min(pause * 2, 60_000)), pause);
      return;
    }
    this.#tabs = new Tabs<Message>(`tocsin ${this.api.base} ${this.#who}`, {
      lead: (signal) => this.#lead(signal),
      message: (message) => this.#receive(message),
    });
    this.#tabs.post({ kind: 'ask' });
    this.#tabs.start();
  }

  #leave(): void {
    this.#tabs?.close();
    this.#tabs = null;
  }

  /** Another person is signed in now, by another tab or by the host's app. */
  #startOver(): void {
    this.#leave();
    this.#forget();
    void this.#join();
  }

  #forget(): void {
    this.#who = null;
    this.#lastId = this.#badge = '';
    this.#link = 'connecting';
    this.listener.forget();
  }

  #lead(signal: AbortSignal): void {
    this.#stream = new Stream(this.api, this.#lastId, {
      check: async () => {
        if ((await identify(this.api)) === this.#who || signal.aborted) return;
        this.#startOver();
        throw new Problem(0, 'Somebody else is signed in.');
      },
      events: (events) => this.#broadcast(events),
      link: (link) => this.#report(link),
    });
    void this.#stream.run(signal);
    signal.addEventListener('abort', () => (this.#stream = null));
  }

  #broadcast(events: ServerEvent[]): void {
    this.#tabs?.post({ kind: 'events', before: this.#lastId, events });
    this.#take(events);
  }

  #take(events: ServerEvent[]): void {
    if (!this.#lastId) this.listener.missed(); // a list that was loaded before the stream began
    for (const { id, event, data } of events) {
      this.#lastId = id;
      if (event === 'badge') this.#badge = data;
      this.listener.event(event, data);
    }
  }

  #report(link: Link): void {
    if (link === this.#link) return;
    if (this.#stream !== null) this.#tabs?.post({ kind: 'link', link });
    this.#link = link;
    this.listener.link(link);
  }

  #receive(message: Message): void {
    if (this.#stream !== null) {
      if (message.kind !== 'ask') return;
      this.#stream.wake();
      this.#tabs?.post({ kind: 'now', lastId: this.#lastId, link: this.#link, badge: this.#badge });
      return;
    }
    if (message.kind === 'ask') return;
    this.#replied();
    if (message.kind === 'events') {
      this.#expect(message.before);
      this.#take(message.events);
    } else {
      if (message.kind === 'now') {
        this.#expect(message.lastId);
        if (message.badge) this.listener.event('badge', (this.#badge = message.badge));
      }
      this.#link = message.link;
      this.listener.link(message.link);
    }
  }

  #expect(lastId: string): void {
    if (lastId !== this.#lastId) this.listener.missed();
    this.#lastId = lastId;
  }

  async #wake(certain = false): Promise<void> {
    if (this.#tabs === null) return this.#join();
    if (this.#stream !== null) this.#stream.wake(certain);
    else await this.#ask();
    if (this.api.credentials.byCookie && !(await this.#isSame())) this.#startOver();
  }

  /** Another tab may have changed or removed the cookie. Without a response, the person is assumed to be the same. */
  async #isSame(): Promise<boolean> {
    try {
      return (await identify(this.api)) === this.#who;
    } catch (error) {
      return !(error instanceof Problem && error.isSignedOut);
    }
  }

  /** Follows the leader, or becomes it. */
  async #ask(): Promise<void> {
    const replied = new Promise<boolean>((resolve) => {
      this.#replied = () => resolve(true);
      setTimeout(() => resolve(false), REPLY_WITHIN);
    });
    this.#tabs?.post({ kind: 'ask' });
    if (!(await replied)) this.#tabs?.steal();
  }

  #ticks = 0;
  #ticked = Date.now();

  #tick(): void {
    const gap = Date.now() - this.#ticked;
    this.#ticked = Date.now();
    this.#stream?.watch();
    if (document.visibilityState !== 'visible') return;
    if (gap > SLEPT) void this.#wake();
    else if (this.#tabs !== null && this.#stream === null && ++this.#ticks % ASK_EACH === 0) void this.#ask();
  }
}
