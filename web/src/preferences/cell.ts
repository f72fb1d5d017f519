// One switch of the matrix: its state, its source, and a button to inherit again.

import { drawing, h, set } from '../shared/element.js';
import type { Context } from './context.js';
import { LOCK, newId, undoIcon } from './parts.js';
import { ALL, choiceOf, type Category, type EventType, next, type Overrides, sum } from './rules.js';
import type { Speech } from './speech.js';

/** A row: everything, a category, or one event type. */
export interface Row {
  scope: string;
  label: string;
  categories: Category[]; // with its event types
  category?: Category; // of a single event type
  type?: EventType;
}

export class Cell {
  readonly element: HTMLElement;
  readonly box: HTMLInputElement;
  readonly #source = h('span', { class: 'source', id: newId() });
  readonly #back: HTMLButtonElement;
  #overrides: Overrides = {};

  /** `change` receives the choice; null inherits again. */
  constructor(
    private readonly speech: Speech,
    private readonly row: Row,
    private readonly channel: string,
    change: (on: boolean | null) => void,
  ) {
    const name = speech.channel(channel);
    const cell = speech.say('cell', { channel: name, what: row.label });
    const inherit = speech.say('inherit', { cell });
    this.box = h('input', { type: 'checkbox', class: 'switch', 'aria-label': cell });
    this.box.addEventListener('change', () => change(next(this.#sum())));
    this.#back = h(
      'button',
      { type: 'button', class: 'back', 'aria-label': `${speech.say('own')}. ${inherit}`, title: inherit },
      h('span', {}, speech.say('own')),
      undoIcon(),
    );
    this.#back.addEventListener('click', () => {
      this.box.focus();
      change(null);
    });
    this.element = h('td', { role: 'cell' }, this.box, this.#source, this.#back);
  }

  show(overrides: Overrides): void {
    this.#overrides = overrides;
    const { on, of, own } = this.#sum();
    this.box.checked = on === of;
    this.box.indeterminate = on > 0 && on < of;
    this.box.classList.toggle('own', own !== undefined);
    this.#back.hidden = own === undefined;
    this.#source.textContent = this.box.indeterminate ? this.speech.say('some', { on, of }) : own === undefined ? this.#origin() : '';
    this.#source.hidden = !this.#source.textContent;
    set(this.box, { 'aria-describedby': this.#source.hidden ? null : this.#source.id });
  }

  #sum() {
    return sum(this.row.categories, this.row.scope, this.channel, this.#overrides);
  }

  /** Which choice of the person an inherited value comes from; '' for the default. */
  #origin(): string {
    const { scope, type, category } = this.row;
    const all = this.#overrides[ALL]?.[this.channel] !== undefined && scope !== ALL;
    if (!type || !category) return all ? this.speech.say('fromAll') : '';
    const { source } = choiceOf(type, category.category, this.channel, this.#overrides);
    if (source === 'category') return this.speech.say('fromCategory', { category: category.label });
    return source === 'all' ? this.speech.say('fromAll') : '';
  }
}

/** A switch that cannot be turned off; it can have the focus, and its label gives the reason. */
export function lockedCell({ speech, announce }: Context, row: Row, channel: string, why: HTMLElement): HTMLElement {
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
    announce(why.textContent ?? '');
  });
  return h('td', { role: 'cell' }, box, h('span', { class: 'source' }, drawing(LOCK, 12), speech.say('always')));
}
