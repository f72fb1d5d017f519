// The topics that a person follows or has muted.

import { h, set } from '../shared/element.js';
import type { Context, Section } from './context.js';
import { failure, section, showFailure } from './parts.js';

type Level = 'all' | 'mentions' | 'muted';

interface Subscription {
  topic: string;
  level: Level;
  because: string;
  latest: { title: string; action_url: string | null; created_at: string } | null;
}

interface Page {
  results: Subscription[];
  next: string | null;
}

const PATH = 'subscriptions/';
const LEVELS = { all: 'levelAll', mentions: 'levelMentions', muted: 'levelMuted' } as const;
const CONFIRMATIONS = { all: 'nowAll', mentions: 'nowMentions', muted: 'nowMuted' } as const;
const PAGE = 20;

export class Topics implements Section {
  readonly element: HTMLElement;
  readonly #list = h('ul', { class: 'items' });
  readonly #empty: HTMLElement;
  readonly #failed = failure();
  readonly #more: HTMLButtonElement;
  readonly #rows = new Map<string, TopicRow>();
  #next: string | null = null;
  #last: Promise<unknown> = Promise.resolve();
  #underWay = 0;
  #changes = 0;

  private constructor(private readonly context: Context) {
    const { speech } = context;
    this.#empty = h('p', { class: 'empty' }, speech.say('noTopics'));
    this.#more = h('button', { type: 'button', class: 'plain', onclick: () => this.#showMore() }, speech.say('more'));
    this.element = section(
      'topics',
      speech.say('topics'),
      speech.say('topicsHint'),
      this.#list,
      this.#empty,
      this.#failed,
      this.#more,
    );
  }

  static async read(context: Context): Promise<Topics> {
    const topics = new Topics(context);
    topics.#read(await context.api.json<Page>('GET', `${PATH}?limit=${PAGE}`), false);
    return topics;
  }

  get saving(): boolean {
    return this.#underWay > 0;
  }

  async refresh(): Promise<void> {
    if (this.saving) return;
    const before = this.#changes;
    const limit = Math.min(100, Math.max(PAGE, this.#rows.size));
    const page = await this.context.api.json<Page>('GET', `${PATH}?limit=${limit}`);
    if (before === this.#changes) this.#read(page, this.#rows.size <= limit);
  }

  async #showMore(): Promise<void> {
    showFailure(this.#failed, null);
    try {
      const page = await this.context.api.json<Page>('GET', PATH + new URL(this.#next!).search);
      this.#read(page, false);
      this.#rows.get(page.results[0]?.topic ?? '')?.level.focus();
    } catch (problem) {
      showFailure(this.#failed, this.context.failed(problem));
    }
  }

  #read(page: Page, all: boolean): void {
    if (all) {
      const there = new Set(page.results.map(({ topic }) => topic));
      for (const topic of [...this.#rows.keys()]) if (!there.has(topic)) this.#take(topic);
    }
    for (const each of page.results) this.#put(each);
    this.#next = page.next;
    this.#more.hidden = page.next === null;
    this.#count();
  }

  #put(found: Subscription): void {
    const known = this.#rows.get(found.topic);
    if (known) return known.show(found);
    const row = new TopicRow(
      this.context,
      found,
      (level) => this.#set(row.found, level),
      () => this.#unfollow(row.found),
    );
    this.#rows.set(found.topic, row);
    this.#list.append(row.element);
  }

  #take(topic: string): void {
    this.#rows.get(topic)?.element.remove();
    this.#rows.delete(topic);
    this.#count();
  }

  #count(): void {
    this.#empty.hidden = this.#rows.size > 0;
    this.#list.hidden = this.#rows.size === 0;
  }

  async #set(before: Subscription, level: Level): Promise<void> {
    const row = this.#rows.get(before.topic);
    const chosen = { ...before, level };
    row?.show(chosen);
    await this.#save(row, async () => {
      try {
        const saved = await this.context.api.json<Subscription>('POST', PATH, { topic: before.topic, level });
        if (row === undefined || row.found === chosen) this.#put(saved); // else it shows a later choice
      } catch (problem) {
        if (row?.found === chosen) row.show(before);
        throw problem;
      }
      const sentence = this.context.speech.say(CONFIRMATIONS[level], { topic: this.#name(before) });
      this.context.announce(sentence, () => this.#set({ ...before, level }, before.level));
    });
  }

  async #unfollow(before: Subscription): Promise<void> {
    const row = this.#rows.get(before.topic);
    const after = row?.element.nextElementSibling ?? row?.element.previousElementSibling;
    await this.#save(row, async () => {
      await this.context.api.json('DELETE', `${PATH}${encodeURIComponent(before.topic)}/`);
      const focus = row?.element.matches(':focus-within');
      this.#take(before.topic);
      if (focus) (after?.querySelector('select') ?? this.element.querySelector('h2'))?.focus();
      const sentence = this.context.speech.say('nowUnfollowed', { topic: this.#name(before) });
      this.context.announce(sentence, () => this.#set(before, before.level));
    });
  }

  async #save(row: TopicRow | undefined, save: () => Promise<void>): Promise<void> {
    const failed = row?.failed ?? this.#failed;
    showFailure(failed, null);
    this.#underWay++;
    this.#changes++;
    this.context.saving();
    const saved = this.#last.then(save); // in their order, as they were chosen
    this.#last = saved.catch(() => undefined);
    try {
      await saved;
    } catch (problem) {
      showFailure(failed, this.context.failed(problem));
    } finally {
      this.#underWay--;
      this.context.saving();
    }
  }

  #name(found: Subscription): string {
    return nameOf(this.context, found);
  }
}

/** One topic: its name, its level, and a button to unfollow it. */
class TopicRow {
  readonly element: HTMLLIElement;
  readonly failed = failure();
  readonly level: HTMLSelectElement;
  readonly #note = h('p', { class: 'about' });
  readonly #leave: HTMLButtonElement;

  constructor(
    private readonly context: Context,
    public found: Subscription,
    choose: (level: Level) => void,
    leave: () => void,
  ) {
    const { speech } = context;
    const name = nameOf(context, found);
    const levels = Object.entries(LEVELS).map(([value, key]) => h('option', { value }, speech.say(key)));
    this.level = h('select', { 'aria-label': speech.say('level', { topic: name }) }, ...levels);
    this.level.addEventListener('change', () => choose(this.level.value as Level));
    this.#leave = h('button', { type: 'button', class: 'plain', onclick: leave });
    this.element = h(
      'li',
      { class: 'item' },
      h('div', { class: 'what' }, this.#title(name), this.#note, this.failed),
      h('div', { class: 'actions' }, this.level, this.#leave),
    );
    this.show(found);
  }

  show(found: Subscription): void {
    const { speech } = this.context;
    this.found = found;
    this.level.value = found.level;
    const muted = found.level === 'muted';
    this.element.classList.toggle('muted', muted);
    const last = found.latest && speech.say('lastNotified', { when: speech.ago(found.latest.created_at) });
    const why = muted ? 'mutedNote' : found.because === 'replied' ? 'replied' : 'followed';
    this.#note.textContent = [speech.say(why), last].filter(Boolean).join(' · ');
    if (nameOf(this.context, found) !== found.topic) this.#note.append(h('code', { dir: 'ltr' }, found.topic));
    this.#leave.textContent = speech.say(muted ? 'unmute' : 'unfollow');
    set(this.#leave, {
      'aria-label': speech.say(muted ? 'unmuteWhat' : 'unfollowWhat', { topic: nameOf(this.context, found) }),
    });
  }

  #title(name: string): HTMLElement {
    const href = webAddress(this.context.topic(this.found.topic)?.href);
    return h('p', { class: 'name', dir: 'auto' }, href ? h('a', { href }, name) : name);
  }
}

/** The host's own name, the title of the last notification, or the key. */
function nameOf(context: Context, { topic, latest }: Subscription): string {
  return context.topic(topic)?.label || latest?.title || topic;
}

/** A URL that may be linked; never a script. */
export function webAddress(href: string | null | undefined): string | null {
  if (!href || !URL.canParse(href, document.baseURI)) return null;
  const url = new URL(href, document.baseURI);
  return ['https:', 'http:'].includes(url.protocol) ? url.href : null;
}
