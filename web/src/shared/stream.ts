// One stream kept open: fetched, since that sends Authorization and Last-Event-ID and distinguishes a refusal from an outage.

import type { Link } from '../public/tocsin-client.js';
import { type Api, Problem } from './api.js';
import { read, type ServerEvent } from './sse.js';

const HEARTBEAT = 15_000; // milliseconds between two messages of the server
const LONGEST = 60_000;

interface Listener {
  /** Called before each connection; throws to prevent it. */
  check(): Promise<void>;
  /** Events of one chunk. */
  events(events: ServerEvent[]): void;
  link(link: Link): void;
}

export class Stream {
  #receivedAt = 0; // when the server last sent something, or was last connected to
  #retry = 3_000;
  #failures = 0;
  #live = false;
  #refused = false;
  #again: () => void = () => {};

  constructor(
    private readonly api: Api,
    /** The last event that was seen; later ones are replayed. */
    private lastId: string,
    private readonly listener: Listener,
  ) {}

  /** Runs until the signal. Pauses are random, so that not all clients reconnect at once after a restart of the service. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const attempt = new AbortController();
      const stop = () => attempt.abort();
      signal.addEventListener('abort', stop);
      let resume = () => {};
      const woken = new Promise<void>((resolve) => (resume = resolve));
      this.#again = () => {
        attempt.abort();
        resume();
      };
      const pause = await this.#connect(attempt.signal).catch((error) => this.#failed(error, attempt.signal));
      this.#live = false;
      signal.removeEventListener('abort', stop);
      if (signal.aborted) return;
      const timer = setTimeout(resume, pause * (0.5 + Math.random()));
      await Promise.race([woken, aborted(signal)]);
      clearTimeout(timer);
    }
  }

  /** Reconnects at once: after a sleep, or when the network is back, a stream may be dead without an error. */
  wake(certain = false): void {
    const silent = Date.now() - this.#receivedAt;
    if (certain || this.#refused || silent > (this.#live ? HEARTBEAT + 2_000 : 1_000)) this.#again();
  }

  /** Checked by a timer: two heartbeats are missing. */
  watch(): void {
    if (this.#live && Date.now() - this.#receivedAt > 2 * HEARTBEAT + 5_000) this.#again();
  }

  /** Returns the pause after it, in milliseconds. */
  async #connect(signal: AbortSignal): Promise<number> {
    this.#receivedAt = Date.now();
    this.#refused = false;
    await this.listener.check();
    const headers: Record<string, string> = this.lastId ? { 'Last-Event-ID': this.lastId } : {};
    const response = await this.api.call('GET', 'notifications/stream/', undefined, { signal, headers });
    const began = Date.now();
    this.#receivedAt = began;
    this.#live = true;
    this.#failures = 0;
    for await (const events of read(response.body!)) {
      this.#receivedAt = Date.now();
      this.listener.link('live'); // each time: the browser may have reported "offline" wrongly
      for (const { retry } of events) if (retry) this.#retry = Number(retry);
      const known = events.filter(({ event }) => event && event !== 'expired');
      if (known.length > 0) {
        this.listener.events(known);
        this.lastId = known.at(-1)!.id;
      }
      if (events.some(({ event }) => event === 'expired')) {
        this.api.credentials.refused();
        return Date.now() - began > 5_000 ? 0 : this.#retry; // prevents a loop of requests if the callback returns an expired token
      }
    }
    this.listener.link('connecting');
    return this.#retry;
  }

  #failed(error: unknown, signal: AbortSignal): number {
    if (signal.aborted) return 0;
    const problem = error instanceof Problem ? error : new Problem(0, String(error));
    this.#failures++;
    this.#refused = problem.isSignedOut;
    this.listener.link(this.#refused ? 'signed-out' : 'offline');
    if (this.#refused) return LONGEST * 5;
    return problem.retryAfter ?? Math.min(LONGEST, this.#retry * 2 ** Math.min(this.#failures - 1, 6));
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
