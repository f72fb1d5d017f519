// Suppressed addresses: the newest ones with their reasons, and lifting one, which asks for confirmation.

import { get, remove, SignedOut } from './api.js';
import { byId, el, keyed, say, set } from './dom.js';
import { clock, count, whole } from './format.js';
import type { MailEvents, Suppression } from './types.js';

interface Page {
  results: Suppression[];
  next: string | null;
}

export class Suppressions {
  #shown: Suppression[] = [];
  #next: string | null = null;
  #asked = -Infinity;
  #loads = 0; // only the response to the last one is used

  constructor() {
    byId('suppressions-more').addEventListener('click', () => void this.#older());
  }

  /** Reloads the list at intervals, and shows what came back on the last day. */
  follow(events: MailEvents): void {
    const line = byId('mail-events');
    line.hidden = events.bounces + events.complaints === 0;
    say(
      line,
      `On the last day ${whole(events.sent)} mails were sent; ${count(events.bounces, 'bounce')} came back, ${whole(events.dead)} of ` +
        `them from mailboxes that do not exist, and ${count(events.complaints, 'complaint')}.`,
    );
    if (performance.now() - this.#asked > 10_000) void this.load();
  }

  async load(): Promise<void> {
    this.#asked = performance.now();
    const load = ++this.#loads;
    await guarded(async () => {
      const limit = String(Math.min(100, Math.max(10, this.#shown.length)));
      const page = await get<Page>('suppressions/', { limit });
      if (load !== this.#loads) return;
      [this.#shown, this.#next] = [page.results, page.next];
      this.#show();
    });
  }

  async #older(): Promise<void> {
    const load = ++this.#loads;
    await guarded(async () => {
      const page = await get<Page>('suppressions/', { cursor: this.#next, limit: '50' });
      if (load !== this.#loads) return this.#older();
      this.#shown = [...this.#shown, ...page.results];
      this.#next = page.next;
      this.#show();
    });
  }

  #show(): void {
    byId('suppressions-none').hidden = this.#shown.length > 0;
    byId('suppressions-box').hidden = this.#shown.length === 0;
    byId('suppressions-more').hidden = this.#next === null;
    const body = byId<HTMLTableElement>('suppressions-table').tBodies[0] as Element;
    keyed(body, this.#shown, (each) => String(each.id), (each) => this.#makeRow(each), () => undefined);
  }

  #makeRow(found: Suppression): HTMLTableRowElement {
    const name = found.address ?? 'an erased address';
    const ask = el('button', { type: 'button' }, 'Lift');
    const sure = el('button', { type: 'button', class: 'sure', hidden: '' }, 'Yes, mail it again');
    const not = el('button', { type: 'button', class: 'quiet', hidden: '' }, 'No');
    set(ask, { 'aria-label': `Lift the suppression of ${name}` });
    const asking = (on: boolean): void => {
      [ask.hidden, sure.hidden, not.hidden] = [on, !on, !on];
      (on ? sure : ask).focus();
    };
    ask.addEventListener('click', () => asking(true));
    not.addEventListener('click', () => asking(false));
    sure.addEventListener('click', () => void this.#lift(found, name));
    return el(
      'tr',
      {},
      el('td', { class: 'when' }, el('time', { datetime: found.created_at }, clock(found.created_at))),
      el('td', {}, found.address ?? el('span', { class: 'aside' }, 'erased')),
      el('td', {}, el('code', {}, found.reason), el('span', { class: 'aside' }, found.meaning)),
      el('td', { class: 'do' }, ask, sure, not),
    );
  }

  async #lift(found: Suppression, name: string): Promise<void> {
    await guarded(async () => {
      await remove(`suppressions/${found.id}/`);
      say(byId('status'), `Lifted: ${name} may be mailed again.`);
    });
    await this.load();
  }
}

async function guarded(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (error instanceof SignedOut) location.reload();
    say(byId('status'), `That failed: ${(error as Error).message}`);
  }
}
