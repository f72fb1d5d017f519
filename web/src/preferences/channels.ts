// The matrix: each category and event type by channel.

import { drawing, h, set } from '../shared/element.js';
import { Cell, lockedCell, type Row } from './cell.js';
import type { Context, Section } from './context.js';
import { Draft } from './draft.js';
import { failure, LOCK, newId, section, showFailure } from './parts.js';
import { ALL, type Category, type Change, channelsOf, merged, type Overrides, reverse, scopeOf } from './rules.js';

interface Preferences {
  event_types: Record<string, Record<string, boolean>>;
  overrides: Overrides;
  complaints: string[];
}

const CHEVRON = 'm9 6 6 6-6 6';

export class Channels implements Section {
  readonly element: HTMLElement;
  readonly #draft: Draft<Overrides, Change>;
  readonly #channels: string[];
  readonly #cells: Cell[] = [];
  readonly #groups: { button: HTMLButtonElement; rows: HTMLElement[] }[] = [];
  readonly #all: HTMLButtonElement;
  readonly #complaints = new Map<string, HTMLElement>(); // by scope

  private constructor(
    private readonly context: Context,
    private readonly catalogue: Category[],
    preferences: Preferences,
  ) {
    const { speech } = context;
    this.#channels = channelsOf(preferences.event_types);
    for (const scope of preferences.complaints) {
      this.#complaints.set(scope, h('p', { class: 'complaint' }, speech.say('complained')));
    }
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

  /** The catalogue, from which other sections take the names of categories. */
  get categories(): Category[] {
    return this.catalogue;
  }

  async refresh(): Promise<void> {
    await this.#draft.refresh(
      async () => (await this.context.api.json<Preferences>('GET', 'notification-preferences/')).overrides,
    );
  }

  // The table's roles are explicit: on a narrow page another layout would remove them.
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
    name.append(...mandatory, this.#complaints.get(row.scope) ?? '', failed);
    const cells = this.#channels.map((channel) => {
      const locked = row.type?.mandatory_channels.indexOf(channel) ?? -1;
      if (locked >= 0) return lockedCell(this.context, row, channel, mandatory[locked]!);
      const cell = new Cell(speech, row, channel, (on) => this.#change(row, channel, on, failed, cell.box));
      this.#cells.push(cell);
      return cell.element;
    });
    return h('tr', { role: 'row', class: kind }, name, ...cells);
  }

  async #change(row: Row, channel: string, on: boolean | null, failed: HTMLElement, box: HTMLElement): Promise<void> {
    const change = { [row.scope]: { [channel]: on } };
    const back = reverse(change, this.#draft.state);
    showFailure(failed, null);
    set(box, { 'aria-invalid': null });
    try {
      const saved = this.#draft.change(change);
      if (channel === 'email') this.#complaints.get(row.scope)?.remove();
      const sentence = this.#sentence(row, channel, on);
      await saved;
      this.context.announce(sentence, () => this.#change(row, channel, back[row.scope]![channel]!, failed, box));
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
