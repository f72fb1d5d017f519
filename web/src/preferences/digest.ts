// The digest: its frequency, time and categories.

import { h } from '../shared/element.js';
import type { Context, Section } from './context.js';
import { Draft } from './draft.js';
import { AfterTyping, failure, newId, ownZone, section, showFailure, type Zones, zones } from './parts.js';
import type { Category } from './rules.js';
import type { Key } from './speech.js';

const FREQUENCIES = ['off', 'daily', 'weekly'] as const;
const WEEKDAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'];

interface Preferences {
  frequency: (typeof FREQUENCIES)[number];
  categories: string[];
  all_categories: boolean;
  send_at: string;
  timezone: string;
  weekday: string;
  next_at: string | null;
}

type Change = Partial<Omit<Preferences, 'next_at' | 'all_categories' | 'categories'>> & { categories?: string[] | null };

const PATH = 'digest-preferences/';

export class Digest implements Section {
  readonly element: HTMLElement;
  readonly #draft: Draft<Preferences, Change>;
  readonly #failed = failure();
  readonly #next = h('p', { class: 'next' });
  readonly #chosen = h('span', { class: 'chosen' });
  readonly #alone = h('p', { class: 'note' });
  readonly #details: HTMLElement;
  readonly #radios = new Map<string, HTMLInputElement>();
  readonly #boxes = new Map<string, HTMLInputElement>();
  readonly #everything = h('input', { type: 'checkbox' });
  readonly #time: HTMLInputElement;
  readonly #weekday: HTMLSelectElement;
  readonly #weekdayField: HTMLElement;
  readonly #zones: Zones;
  readonly #typing = new AfterTyping(() => this.#time.value && this.#change({ send_at: this.#time.value }, 'digestChanged'));

  private constructor(
    private readonly context: Context,
    private readonly catalogue: Category[],
    preferences: Preferences,
  ) {
    const { speech, api } = context;
    this.#draft = new Draft<Preferences, Change>(
      preferences,
      (state, change) => this.#merged(state, change),
      (change) => api.json('PATCH', PATH, change),
      () => {
        this.#show();
        context.saving();
      },
    );
    this.#time = h('input', { type: 'time', required: true, oninput: this.#typing.typed });
    this.#weekday = h('select', { onchange: () => this.#change({ weekday: this.#weekday.value }, 'digestChanged') });
    WEEKDAYS.forEach((name, index) => this.#weekday.append(h('option', { value: name }, speech.weekday(index))));
    this.#weekdayField = h('label', { class: 'field' }, h('span', {}, speech.say('weekday')), this.#weekday);
    this.#zones = zones(speech, [ownZone(), 'UTC'], (timezone) => this.#change({ timezone }, 'digestChanged'));
    this.#details = h(
      'div',
      { class: 'details' },
      this.#next,
      h(
        'div',
        { class: 'fields' },
        this.#weekdayField,
        h('label', { class: 'field' }, h('span', {}, speech.say('sendAt')), this.#time),
        h('label', { class: 'field wide' }, h('span', {}, speech.say('timezone')), this.#zones.element),
      ),
      this.#categories(),
    );
    this.element = section(
      'digest',
      speech.say('digest'),
      speech.say('digestHint'),
      this.#frequencies(),
      this.#failed,
      this.#details,
    );
    this.#show();
  }

  static async read(context: Context, catalogue: Category[]): Promise<Digest> {
    return new Digest(context, catalogue, await context.api.json<Preferences>('GET', PATH));
  }

  get saving(): boolean {
    return this.#draft.saving;
  }

  async refresh(): Promise<void> {
    await this.#draft.refresh(() => this.context.api.json<Preferences>('GET', PATH));
  }

  #frequencies(): HTMLElement {
    const { speech } = this.context;
    const name = newId();
    const choices = FREQUENCIES.map((frequency) => {
      const radio = h('input', { type: 'radio', name, value: frequency, onchange: () => this.#turn(frequency) });
      this.#radios.set(frequency, radio);
      return h('label', {}, radio, h('span', {}, speech.say(frequency)));
    });
    return h(
      'fieldset',
      { class: 'segments' },
      h('legend', { class: 'unseen' }, speech.say('frequency')),
      ...choices,
    );
  }

  #categories(): HTMLElement {
    const { speech } = this.context;
    const choose = (change: Change) => this.#change(change, 'digestChanged');
    this.#everything.addEventListener('change', () =>
      choose({ categories: this.#everything.checked ? null : this.#draft.state.categories }),
    );
    const boxes = this.#holdable().map(({ category, label }) => {
      const box = h('input', { type: 'checkbox' });
      box.addEventListener('change', () => {
        const chosen = this.#draft.state.categories.filter((name) => name !== category);
        choose({ categories: box.checked ? [...chosen, category] : chosen });
      });
      this.#boxes.set(category, box);
      return h('label', { class: 'check' }, box, h('span', { dir: 'auto' }, label));
    });
    const all = h('label', { class: 'check all' }, this.#everything, h('span', {}, speech.say('allCategories')));
    const legend = h('legend', { class: 'unseen' }, speech.say('digestCategories'));
    return h(
      'details',
      {},
      h('summary', {}, speech.say('digestCategories'), ': ', this.#chosen),
      h('fieldset', { class: 'checks' }, legend, all, ...boxes),
      this.#alone,
    );
  }

  /** Categories with an event type that digests may include. */
  #holdable(): Category[] {
    return this.catalogue.filter(({ event_types }) => event_types.some(({ digest }) => digest));
  }

  #turn(frequency: Preferences['frequency']): void {
    const { frequency: before, timezone } = this.#draft.state;
    const words = { off: 'digestOff', daily: 'digestDaily', weekly: 'digestWeekly' } as const;
    // the first time, the hour is meant in the person's own time zone
    const first = before === 'off' && timezone === 'UTC' && ownZone() !== 'UTC';
    this.#change(first ? { frequency, timezone: ownZone() } : { frequency }, words[frequency]);
  }

  async #change(change: Change, key: Key): Promise<void> {
    const before = this.#draft.state;
    const back: Change = {};
    for (const name of Object.keys(change) as (keyof Change)[]) {
      Object.assign(back, { [name]: name === 'categories' && before.all_categories ? null : before[name] });
    }
    showFailure(this.#failed, null);
    try {
      await this.#draft.change(change);
      const { next_at } = this.#draft.state;
      const sentence = [this.context.speech.say(key), next_at && this.#nextOne()].filter(Boolean).join(' ');
      this.context.announce(sentence, () => this.#change(back, 'digestChanged'));
    } catch (problem) {
      showFailure(this.#failed, this.context.failed(problem));
    }
  }

  #merged(state: Preferences, { categories, ...change }: Change): Preferences {
    const merged = { ...state, ...change };
    if (categories === undefined) return merged;
    const all = this.#holdable().map(({ category }) => category);
    return { ...merged, categories: categories ?? all, all_categories: categories === null };
  }

  #show(): void {
    const { speech } = this.context;
    const { frequency, categories, all_categories, send_at, timezone, weekday } = this.#draft.state;
    this.#radios.get(frequency)!.checked = true;
    this.#details.hidden = frequency === 'off';
    this.#weekdayField.hidden = frequency !== 'weekly';
    this.#weekday.value = weekday;
    if (this.#time.value !== send_at && !this.#typing.waits && this.#time !== active(this.#time)) this.#time.value = send_at;
    this.#zones.show(timezone);
    this.#everything.checked = all_categories;
    const labels = this.#holdable().filter(({ category }) => categories.includes(category)).map(({ label }) => label);
    this.#chosen.textContent = all_categories ? speech.say('everything') : speech.list(labels) || speech.say('nothing');
    for (const [category, box] of this.#boxes) box.checked = categories.includes(category);
    this.#next.textContent = this.#nextOne();
    this.#next.classList.toggle('pending', this.saving);
    const alone = this.catalogue
      .filter(({ category }) => categories.includes(category))
      .flatMap(({ event_types }) => event_types)
      .filter(({ digest, default_channels }) => !digest && default_channels.includes('email'))
      .map(({ label }) => label);
    this.#alone.hidden = alone.length === 0;
    this.#alone.textContent = speech.say('alone', { types: speech.list(alone) });
  }

  #nextOne(): string {
    const { speech } = this.context;
    const { next_at, timezone, frequency } = this.#draft.state;
    if (next_at) return speech.say('nextOne', { when: speech.moment(next_at, timezone) });
    return frequency === 'off' || this.saving ? '' : speech.say('noNextOne');
  }
}

/** The focused element in an element's own tree. */
function active(element: HTMLElement): Element | null {
  return (element.getRootNode() as Document | ShadowRoot).activeElement;
}
