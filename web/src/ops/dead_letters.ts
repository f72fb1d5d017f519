// Dead letters: their number by reason, the newest ones, and their replay, which asks for confirmation before many.

import { get, post, SignedOut } from './api.js';
import { byId, el, keyed, say, set } from './dom.js';
import { clock, count, named, whole } from './format.js';
import { showWhy } from './search.js';
import type { DeadLetter, DeadReason, Replayed } from './types.js';

interface Wanted {
  channel: string;
  reason: string;
}

const HELD: Record<string, string> = {
  cancelled: 'it was taken back',
  expired: 'its time to live is over',
  suppressed: 'its address must not be mailed',
  device_moved: 'its device is gone, or somebody else’s',
  no_device: 'its device is disabled',
  no_subscription: 'its browser is disabled',
  no_target: 'its target is gone or disabled',
  no_provider: 'no worker has a provider',
};

/** What a replay with `lift` undoes. */
const LIFTED = ['suppressed', 'no_device', 'no_subscription', 'no_target'];

export class DeadLetters {
  #wanted: Wanted | null = null;
  #letters: DeadLetter[] = [];
  #next: string | null = null;
  #failed = -1;
  #asked = 0;
  #loads = 0; // only the response to the last one is used
  readonly #results = new Map<string, string>(); // results of replays, by reason

  constructor(private readonly changed: () => void) {
    byId('dead-since').addEventListener('change', () => void this.load());
    byId('dead-lift').addEventListener('change', () => this.#show());
    byId('dead-more').addEventListener('click', () => void this.#older());
    byId('dead-unfilter').addEventListener('click', () => void this.#choose(null));
  }

  /** Reloads the list when more deliveries have failed, and at intervals. */
  follow(failed: number): void {
    const due = performance.now() - this.#asked > 10_000;
    if (failed === this.#failed && !due) return;
    this.#failed = failed;
    void this.load();
  }

  async load(): Promise<void> {
    this.#asked = performance.now();
    const load = ++this.#loads;
    await guarded(async () => {
      const since = this.#since();
      const limit = String(Math.min(100, Math.max(10, this.#letters.length)));
      const [reasons, page] = await Promise.all([
        get<{ results: DeadReason[] }>('dead-letters/reasons/', { since }),
        get<{ results: DeadLetter[]; next: string | null }>('dead-letters/', { since, limit, ...this.#wanted }),
      ]);
      if (load !== this.#loads) return;
      [this.#letters, this.#next] = [page.results, page.next];
      this.#showReasons(reasons.results);
      this.#show();
    });
  }

  async #older(): Promise<void> {
    const load = ++this.#loads;
    await guarded(async () => {
      const page = await get<{ results: DeadLetter[]; next: string | null }>('dead-letters/', {
        since: this.#since(),
        cursor: this.#next,
        limit: '50',
        ...this.#wanted,
      });
      if (load !== this.#loads) return this.#older();
      this.#letters = [...this.#letters, ...page.results];
      this.#next = page.next;
      this.#show();
    });
  }

  async #choose(wanted: Wanted | null): Promise<void> {
    this.#wanted = wanted;
    [this.#letters, this.#next] = [[], null];
    this.#show();
    await this.load();
    byId('dead-list-title').scrollIntoView({ block: 'nearest' });
  }

  #since(): string {
    const hours = Number(byId<HTMLSelectElement>('dead-since').value);
    return new Date(Date.now() - hours * 3_600_000).toISOString();
  }

  #showReasons(reasons: readonly DeadReason[]): void {
    byId('dead-none').hidden = reasons.length > 0;
    byId('dead-box').hidden = reasons.length === 0;
    keyed(byId('dead-reasons'), reasons, (each) => `${each.channel} ${each.reason}`, (each) => this.#makeReason(each), (element, each) => {
      say(element.querySelector('.n') as Element, whole(each.n));
      const when = each.n === 1 ? clock(each.last_at) : `${clock(each.first_at)} to ${clock(each.last_at)}`;
      say(element.querySelector('.when') as Element, `${when} UTC`);
      say(element.querySelector('.result') as Element, this.#results.get(`${each.channel} ${each.reason}`) ?? '');
      say(element.querySelector('.ask') as Element, each.n === 1 ? 'Replay it' : `Replay all ${whole(each.n)}`);
    });
  }

  #makeReason(reason: DeadReason): HTMLElement {
    const pick = el('button', { type: 'button', class: 'quiet' }, 'Show');
    pick.addEventListener('click', () => void this.#choose({ channel: reason.channel, reason: reason.reason }));
    const ask = el('button', { type: 'button', class: 'ask' });
    const sure = el('button', { type: 'button', class: 'sure', hidden: '' }, 'Yes, replay');
    const not = el('button', { type: 'button', class: 'quiet', hidden: '' }, 'No');
    const asking = (on: boolean) => {
      [ask.hidden, sure.hidden, not.hidden] = [on, !on, !on];
      (on ? sure : ask).focus();
    };
    ask.addEventListener('click', () => asking(true));
    not.addEventListener('click', () => asking(false));
    sure.addEventListener('click', () => {
      asking(false);
      void this.#replayAll(reason);
    });
    return el(
      'li',
      {},
      el(
        'p',
        { class: 'head' },
        el('span', { class: 'n' }),
        ` ${named(reason.channel)} `,
        el('code', {}, reason.reason || 'no reason'),
        el('span', { class: 'aside when' }),
      ),
      el('p', { class: 'meaning' }, [reason.meaning, reason.cure === 'Nothing.' ? '' : reason.cure].filter(Boolean).join(' ')),
      el('p', { class: 'do' }, pick, ask, sure, not),
      el('p', { class: 'result', role: 'status' }),
    );
  }

  #show(): void {
    const wanted = this.#wanted;
    say(byId('dead-list-title'), wanted ? `${named(wanted.channel)}: ${wanted.reason}` : 'The newest');
    byId('dead-unfilter').hidden = wanted === null;
    byId('dead-more').hidden = this.#next === null;
    const body = byId<HTMLTableElement>('dead-table').tBodies[0] as Element;
    keyed(body, this.#letters, (each) => String(each.delivery_id), (each) => this.#makeRow(each), (row, each) => {
      const held = each.held && !(this.#lift && LIFTED.includes(each.held)) ? each.held : null;
      const button = row.querySelector('.replay') as HTMLButtonElement;
      button.hidden = held !== null;
      say(row.querySelector('.held') as Element, held ? `Stays: ${HELD[held] ?? held}` : '');
    });
  }

  #makeRow(letter: DeadLetter): HTMLTableRowElement {
    const replay = el('button', { type: 'button', class: 'replay' }, 'Replay');
    set(replay, { 'aria-label': `Replay delivery ${letter.delivery_id}` });
    replay.addEventListener('click', () => void this.#replayOne(letter, replay));
    let title: Node = document.createTextNode(letter.title ?? 'A digest');
    if (letter.notification_id !== null) {
      const id = letter.notification_id;
      title = el('button', { type: 'button', class: 'link', title: 'See why' }, letter.title || letter.event_type || '–');
      title.addEventListener('click', () => void showWhy(id));
    }
    const last = letter.last_reason && letter.last_reason !== letter.reason ? letter.last_reason : null;
    return el(
      'tr',
      {},
      el('td', { class: 'when' }, el('time', { datetime: letter.failed_at }, clock(letter.failed_at))),
      el('td', {}, letter.recipient_id ?? 'no account', el('span', { class: 'aside' }, letter.address)),
      el('td', {}, title, el('span', { class: 'aside' }, letter.event_type)),
      el(
        'td',
        {},
        el('code', {}, letter.reason),
        last ? el('span', { class: 'aside' }, 'at last ', el('code', {}, last)) : null,
        el('span', { class: 'aside' }, count(letter.attempts, 'attempt')),
      ),
      el('td', { class: 'do' }, replay, el('span', { class: 'held aside' })),
    );
  }

  get #lift(): boolean {
    return byId<HTMLInputElement>('dead-lift').checked;
  }

  async #replayOne(letter: DeadLetter, button: HTMLButtonElement): Promise<void> {
    button.disabled = true;
    await guarded(async () => {
      const done = await post<Replayed>('dead-letters/replay/', {
        delivery_ids: [letter.delivery_id],
        lift: this.#lift,
      });
      say(byId('status'), result(done));
    });
    button.disabled = false;
    this.changed();
    await this.load();
  }

  /** Batch by batch, so that a million is not a single transaction; shows its progress. */
  async #replayAll(reason: DeadReason): Promise<void> {
    const key = `${reason.channel} ${reason.reason}`;
    const total: Replayed = { replayed: 0, kept: {}, next: null };
    const since = this.#since();
    await guarded(async () => {
      do {
        const done: Replayed = await post('dead-letters/replay/', {
          channel: reason.channel,
          reason: reason.reason,
          since,
          lift: this.#lift,
          cursor: total.next,
        });
        total.replayed += done.replayed;
        for (const [cause, n] of Object.entries(done.kept)) total.kept[cause] = (total.kept[cause] ?? 0) + n;
        total.next = done.next;
        this.#results.set(key, `${result(total)}${done.next ? ' Going on …' : ''}`);
        await this.load();
      } while (total.next);
    }, (why) => this.#results.set(key, `${result(total)} It stopped: ${why}`));
    say(byId('status'), result(total));
    this.changed();
    await this.load();
  }
}

function result(done: Replayed): string {
  const kept = Object.entries(done.kept).map(([cause, n]) => `${whole(n)} stay: ${HELD[cause] ?? cause}`);
  return `${[`${whole(done.replayed)} due again`, ...kept].join('; ')}.`;
}

async function guarded(act: () => Promise<void>, failed: (why: string) => void = () => undefined): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (error instanceof SignedOut) location.reload();
    failed((error as Error).message);
    say(byId('status'), `That failed: ${(error as Error).message}`);
  }
}
