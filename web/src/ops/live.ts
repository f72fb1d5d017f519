// Polls while the page is visible, and shows how old the numbers are.

import { SignedOut, Unavailable } from './api.js';
import { clockSeconds, span } from './format.js';
import { byId, say, set } from './dom.js';

const EVERY = 2000; // milliseconds
const SLOWEST = 10_000;

function cause(error: unknown): string {
  if (error instanceof Unavailable) {
    return 'The database does not answer, so nothing can be told or sent. Look at PostgreSQL: all else comes back with it.';
  }
  if (error instanceof TypeError || error instanceof DOMException) return 'Connection lost: the service does not answer.';
  return (error as Error).message;
}

/** Runs `read` repeatedly; `now()` runs it at once. */
export class Live {
  #timer = 0;
  #failures = 0;
  #asking = false;
  #again = false;
  #at: Date | null = null; // by the service's clock
  #heard = 0; // by our clock
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
    this.#again = this.#asking;
    if (!this.#asking) void this.#ask();
  }

  /** The service's time, also between two requests. */
  time(): Date {
    return this.#at ? new Date(this.#at.getTime() + performance.now() - this.#heard) : new Date();
  }

  async #ask(): Promise<void> {
    this.#asking = true;
    try {
      this.#at = new Date(await this.read());
      this.#heard = performance.now();
      this.#failures = 0;
    } catch (error) {
      if (error instanceof SignedOut) {
        location.reload(); // the page asks for a key
        return;
      }
      this.#failures += 1;
      this.#why = cause(error);
    } finally {
      this.#asking = false;
    }
    this.#show();
    // a hidden page is not updated; it is when it becomes visible
    if (this.#again) this.now();
    else if (!document.hidden) this.#timer = setTimeout(() => void this.#ask(), this.#pause());
  }

  #pause(): number {
    return Math.min(SLOWEST, EVERY * 2 ** Math.max(0, this.#failures - 1)) * (0.9 + 0.2 * Math.random());
  }

  #show(): void {
    const old = this.#at ? (performance.now() - this.#heard) / 1000 : Infinity;
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
