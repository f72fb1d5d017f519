// Polls while the page is visible, and shows how old the numbers are.

import { SignedOut, Unavailable } from './api.js';
import { clockSeconds, span } from './format.js';
import { byId, say, set } from './dom.js';

const EVERY = 2000; // milliseconds
const SLOWEST = 10_000;

function cause(error: unknown): string {
  if (error instanceof Unavailable) {
    return 'The database does not respond, so nobody can be notified and nothing sent. Check PostgreSQL: the service continues once it is back.';
  }
  if (error instanceof TypeError || error instanceof DOMException) return 'Connection lost: the service does not respond.';
  return (error as Error).message;
}

/** Runs `read` repeatedly; `now()` runs it at once. */
export class Live {
  #timer = 0;
  #failures = 0;
  #reading = false;
  #again = false;
  #at: Date | null = null; // by the service's clock
  #readAt = 0; // by our clock
  #why = '';

  constructor(private readonly read: () => Promise<string>) {
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.now();
    });
    addEventListener('online', () => this.now());
    setInterval(() => this.#show(), 1000);
  }

  now(): void {
    clearTimeout(this.#timer);
    this.#again = this.#reading;
    if (!this.#reading) void this.#update();
  }

  /** The service's time, also between two requests. */
  time(): Date {
    return this.#at ? new Date(this.#at.getTime() + performance.now() - this.#readAt) : new Date();
  }

  async #update(): Promise<void> {
    this.#reading = true;
    try {
      this.#at = new Date(await this.read());
      this.#readAt = performance.now();
      this.#failures = 0;
    } catch (error) {
      if (error instanceof SignedOut) {
        location.reload(); // the page requests a key
        return;
      }
      this.#failures += 1;
      this.#why = cause(error);
    } finally {
      this.#reading = false;
    }
    this.#show();
    // a hidden page is not updated; it is when it becomes visible
    if (this.#again) this.now();
    else if (!document.hidden) this.#timer = setTimeout(() => void this.#update(), this.#pause());
  }

  #pause(): number {
    return Math.min(SLOWEST, EVERY * 2 ** Math.max(0, this.#failures - 1)) * (0.9 + 0.2 * Math.random());
  }

  #show(): void {
    const old = this.#at ? (performance.now() - this.#readAt) / 1000 : Infinity;
    const lost = this.#failures > 1 || (this.#failures > 0 && old > 6);
    const state = !this.#at && !lost ? 'starting' : lost ? 'lost' : 'live';
    set(byId('live'), { 'data-state': state });
    document.body.classList.toggle('stale', lost);
    const banner = byId('lost');
    banner.hidden = !lost;
    if (lost) {
      const shown = this.#at
        ? `What you see is from ${clockSeconds(this.#at)} UTC.`
        : 'Nothing could be read yet.';
      say(banner, `${this.#why} ${shown} It is tried again by itself.`);
    }
    const words = {
      starting: 'Connecting …',
      live: this.#at ? `Live · ${clockSeconds(this.time())} UTC` : '',
      lost: old < Infinity ? `Lost ${old < 10 ? `${Math.round(old)} s` : span(old)} ago` : 'No connection',
    };
    say(byId('live-text'), words[state]);
  }
}
