// The matrix: each category and kind of notification by channel.

import { drawing, h, set } from '../shared/element.js';
import type { Context, Section } from './context.js';
import { Draft } from './draft.js';
import { failure, LOCK, newId, section, showFailure, undoIcon } from './parts.js';
import {
  ALL,
  answer,
  type Category,
  type Change,
  channelsOf,
  type EventType,
  merged,
  next,
  type Overrides,
  reverse,
  scopeOf,
  sum,
} from './rules.js';

interface Preferences {
  event_types: Record<string, Record<string, boolean>>;
  overrides: Overrides;
}

/** What one switch stands for: everything, a category, or one kind. */
interface Row {
  scope: string;
  label: string;
  categories: Category[]; // whose kinds it speaks for
  category?: Category; // of a single kind
  type?: EventType;
}

interface Cell {
  show(overrides: Overrides): void;
}

const CHEVRON = 'm9 6 6 6-6 6';

export class Channels implements Section {
  readonly element: HTMLElement;
  readonly #draft: Draft<Overrides, Change>;
  readonly #channels: string[];
  readonly #cells: Cell[] = [];
  readonly #groups: { button: HTMLButtonElement; rows: HTMLElement[] }[] = [];
  readonly #all: HTMLButtonElement;

  private constructor(
    private readonly context: Context,
    private readonly catalogue: Category[],
    preferences: Preferences,
  ) {
    const { speech } = context;
    this.#channels = channelsOf(preferences.event_types);
    this.#draft = new Draft<Overrides, Change>(
      preferences.overrides,
      merged,
      async (overrides) =>
        (await context.api.json<Preferences>('PATCH', 'notification-preferences/', { overrides })).overrides,
      () => {
        this.#show();
        context.saving();
      },
    );
    this.#all = h('button', { type: 'button', class: 'plain', 'aria-expanded': 'false' }, speech.say('showAll'));
    this.#all.addEventListener('click', () => this.#openAll(this.#all.getAttribute('aria-expanded') === 'false'));
    this.element = section('channels', speech.say('channels'), speech.say('channelsHint'), this.#table(), this.#all);
    this.#show();
  }

  static async read(context: Context): Promise<Channels> {
    const { api, speech } = context;
    const [catalogue, preferences] = await Promise.all([
      api.json<{ results: Category[] }>('GET', `event-types/?locale=${encodeURIComponent(speech.locale)}`),
      api.json<Preferences>('GET', 'notification-preferences/'),
    ]);
    return new Channels(context, catalogue.results, preferences);
  }

  get saving(): boolean {
    return this.#draft.saving;
  }

  /** The catalogue, which other sections name their categories by. */
  get categories(): Category[] {
    return this.catalogue;
  }

  async refresh(): Promise<void> {
    await this.#draft.refresh(
      async () => (await this.context.api.json<Preferences>('GET', 'notification-preferences/')).overrides,
    );
  }

  // The table's roles are said in full: on a narrow page its parts are laid out otherwise, and would lose them.
  #table(): HTMLElement {
    const { speech } = this.context;
    const heads = this.#channels.map((name) =>
      h('th', { scope: 'col', role: 'columnheader' }, speech.channel(name)),
    );
    const everything = { scope: ALL, label: speech.say('everything'), categories: this.catalogue };
    return h(
      'table',
      { role: 'table', class: 'matrix', 'aria-label': speech.say('channels') },
      h(
        'thead',
        { role: 'rowgroup' },
        h('tr', { role: 'row' }, h('th', { scope: 'col', role: 'columnheader' }, speech.say('what')), ...heads),
      ),
      h('tbody', { role: 'rowgroup' }, this.#row(everything, 'everything')),
      ...this.catalogue.map((category) => this.#group(category)),
    );
  }

  #group(category: Category): HTMLElement {
    const row = { scope: scopeOf(category.category), label: category.label, categories: [category] };
    const types = category.event_types.map((type) =>
      this.#row(
        { scope: type.event_type, label: type.label, categories: [{ ...category, event_types: [type] }], category, type },
        'type',
      ),
    );
    for (const each of types) each.hidden = true;
    const id = newId();
    const button = h(
      'button',
      { type: 'button', class: 'disclosure', 'aria-expanded': 'false', 'aria-controls': id },
      drawing(CHEVRON, 16),
      h('span', {}, category.label),
      h('span', { class: 'count', 'aria-hidden': 'true' }, String(types.length)),
    );
    button.addEventListener('click', () => this.#open(button, types, button.getAttribute('aria-expanded') === 'false'));
    this.#groups.push({ button, rows: types });
    return h('tbody', { role: 'rowgroup', id }, this.#row(row, 'category', button), ...types);
  }

  #row(row: Row, kind: string, head?: HTMLElement): HTMLTableRowElement {
    const { speech } = this.context;
    const failed = failure();
    const mandatory = (row.type?.mandatory_channels ?? []).map((name) =>
      h(
        'p',
        { class: 'mandatory', id: newId() },
        drawing(LOCK, 14),
        h('span', {}, speech.say('mandatory', { channel: speech.channel(name), what: row.label })),
      ),
    );
    const name = h('th', { scope: 'row', role: 'rowheader' }, head ?? h('span', { dir: 'auto' }, row.label));
    name.append(...mandatory, failed);
    const cells = this.#channels.map((channel) =>
      row.type?.mandatory_channels.includes(channel)
        ? this.#lockedCell(row, channel, mandatory[row.type.mandatory_channels.indexOf(channel)]!)
        : this.#cell(row, channel, failed),
    );
    return h('tr', { role: 'row', class: kind }, name, ...cells);
  }

  #lockedCell(row: Row, channel: string, why: HTMLElement): HTMLElement {
    const { speech } = this.context;
    const name = speech.channel(channel);
    const box = h('input', {
      type: 'checkbox',
      class: 'switch',
      'aria-label': speech.say('cell', { channel: name, what: row.label }),
      'aria-describedby': why.id,
      'aria-disabled': 'true',
    });
    box.checked = true;
    box.addEventListener('click', (event) => {
      event.preventDefault();
      this.context.told(why.textContent ?? '');
    });
    return h(
      'td',
      { role: 'cell' },
      h('span', { class: 'channel', 'aria-hidden': 'true' }, name),
      box,
      h('span', { class: 'source' }, drawing(LOCK, 12), speech.say('always')),
    );
  }

  #cell(row: Row, channel: string, failed: HTMLElement): HTMLElement {
    const { speech } = this.context;
    const name = speech.channel(channel);
    const cell = speech.say('cell', { channel: name, what: row.label });
    const source = h('span', { class: 'source', id: newId() });
    const box = h('input', {
      type: 'checkbox',
      class: 'switch',
      'aria-label': cell,
      'aria-describedby': source.id,
    });
    const back = h('button', { type: 'button', class: 'back' }, h('span', {}, speech.say('own')), undoIcon());
    set(back, { 'aria-label': `${speech.say('own')}. ${speech.say('inherit', { cell })}`, title: speech.say('inherit', { cell }) });
    const found = () => sum(row.categories, row.scope, channel, this.#draft.state);
    box.addEventListener('change', () => this.#change(row, channel, next(found()), failed, box));
    back.addEventListener('click', () => {
      box.focus();
      this.#change(row, channel, null, failed, box);
    });
    this.#cells.push({
      show: (overrides) => {
        const { on, of, own } = sum(row.categories, row.scope, channel, overrides);
        box.checked = on === of;
        box.indeterminate = on > 0 && on < of;
        box.classList.toggle('own', own !== undefined);
        back.hidden = own === undefined;
        source.hidden = own !== undefined && !box.indeterminate;
        source.textContent = box.indeterminate
          ? speech.say('some', { on, of })
          : this.#source(row, channel, overrides);
        set(box, { 'aria-describedby': source.hidden ? null : source.id });
      },
    });
    return h(
      'td',
      { role: 'cell' },
      h('span', { class: 'channel', 'aria-hidden': 'true' }, name),
      box,
      source,
      back,
    );
  }

  /** Where an inherited answer comes from. */
  #source({ type, category, scope }: Row, channel: string, overrides: Overrides): string {
    const { speech } = this.context;
    const all = overrides[ALL]?.[channel] !== undefined;
    if (type === undefined || category === undefined) return speech.say(all && scope !== ALL ? 'fromAll' : 'default');
    const { source } = answer(type, category.category, channel, overrides);
    if (source === 'category') return speech.say('fromCategory', { category: category.label });
    return speech.say(source === 'all' ? 'fromAll' : 'default');
  }

  async #change(row: Row, channel: string, on: boolean | null, failed: HTMLElement, box: HTMLElement): Promise<void> {
    const change = { [row.scope]: { [channel]: on } };
    const back = reverse(change, this.#draft.state);
    showFailure(failed, null);
    set(box, { 'aria-invalid': null });
    try {
      const saved = this.#draft.change(change);
      const sentence = this.#sentence(row, channel, on);
      await saved;
      this.context.told(sentence, () => this.#change(row, channel, back[row.scope]![channel]!, failed, box));
    } catch (problem) {
      showFailure(failed, this.context.failed(problem));
      set(box, { 'aria-invalid': 'true' });
    }
  }

  #sentence(row: Row, channel: string, on: boolean | null): string {
    const { speech } = this.context;
    const values = { channel: speech.channel(channel), what: row.label };
    if (on === null) return speech.say('nowInherited', values);
    if (on) return speech.say('nowOn', values);
    const stays = row.categories.some(({ event_types }) =>
      event_types.some(({ mandatory_channels }) => mandatory_channels.includes(channel)),
    );
    return speech.say(stays ? 'nowOffBut' : 'nowOff', values);
  }

  #show(): void {
    const overrides = this.#draft.state;
    for (const cell of this.#cells) cell.show(overrides);
  }

  #open(button: HTMLElement, rows: HTMLElement[], open: boolean): void {
    set(button, { 'aria-expanded': String(open) });
    for (const row of rows) row.hidden = !open;
    const every = this.#groups.every((group) => group.button.getAttribute('aria-expanded') === 'true');
    set(this.#all, { 'aria-expanded': String(every) });
    this.#all.textContent = this.context.speech.say(every ? 'hideAll' : 'showAll');
  }

  #openAll(open: boolean): void {
    for (const { button, rows } of this.#groups) this.#open(button, rows, open);
  }
}
