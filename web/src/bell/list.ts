// The list by day, updated from the inbox row by row, with one tab stop that the arrow keys move.

import { h, place, setAttribute, setText } from '../shared/dom.js';
import type { Entry } from './entry.js';
import { type Drawing, type ItemActions, ItemView } from './item.js';
import { Times } from './time.js';
import type { Language } from './words.js';

interface Day {
  element: HTMLElement;
  heading: HTMLElement;
  list: HTMLElement;
}

export class ListView {
  readonly element = h('div', { class: 'days', part: 'list' });
  #views = new Map<Entry, ItemView>();
  #days = new Map<string, Day>();
  #times: Times | null = null;
  #stop: HTMLElement | null = null; // the one tab stop

  constructor(private readonly actions: ItemActions) {
    this.element.addEventListener('focusin', ({ target }) => this.#setStop(target as HTMLElement));
    this.element.addEventListener('focusout', ({ target }) => {
      const row = this.#rows().find(({ controls }) => controls.includes(target as HTMLElement));
      this.#setStop(row?.opener ?? this.#stop); // one comes back to the row, not to its button
    });
    this.element.addEventListener('keydown', (event) => this.#keydown(event));
  }

  /** When the language changes, all elements are created again. */
  forget(): void {
    this.#times = null;
    this.#days.clear();
    this.#views.clear();
  }

  render(entries: readonly Entry[], language: Language, categories: Map<string, string>): void {
    const now = new Date();
    const times = (this.#times ??= new Times(language.lang));
    const drawing: Drawing = { language, times, now, category: ({ category }) => categories.get(category) ?? category };
    const views = new Map<Entry, ItemView>();
    const days = new Map<string, Element[]>();
    for (const entry of entries) {
      const view = this.#views.get(entry) ?? new ItemView(entry, this.actions);
      view.update(drawing);
      views.set(entry, view);
      const day = times.day(new Date(entry.latest.created_at), now);
      if (!days.get(day)?.push(view.element)) days.set(day, [view.element]);
    }
    this.#views = views;
    place(this.element, [...days].map(([name, elements]) => this.#day(name, elements)));
    for (const name of this.#days.keys()) if (!days.has(name)) this.#days.delete(name);
    if (!this.#stop?.isConnected || !this.#stop.checkVisibility()) this.#setStop(this.#rows()[0]?.opener ?? null);
  }

  /** Marks it as new; the style sheet has its look. */
  slideIn(id: number): void {
    const { element } = this.#rows().find(({ entry }) => entry.latest.id === id) ?? {};
    element?.classList.add('new');
    element?.addEventListener('animationend', () => element.classList.remove('new'), { once: true });
  }

  /** Moves the focus into the list; returns false if there is nothing to focus. */
  enter(): boolean {
    this.#stop?.focus();
    return this.#stop !== null;
  }

  /** If the focus is in this row, it moves to the row that takes its place. */
  leave(entry: Entry, otherwise: HTMLElement): void {
    const rows = this.#rows();
    const leaving = rows.filter((row) => row.entry === entry || row.entry.parent === entry);
    if (!leaving.some(({ element }) => element.matches(':focus-within'))) return;
    const at = rows.indexOf(leaving[0]!);
    (rows[at + leaving.length] ?? rows[at - 1])?.opener.focus();
    if (leaving.some(({ element }) => element.matches(':focus-within'))) otherwise.focus();
  }

  #day(name: string, elements: Element[]): HTMLElement {
    let day = this.#days.get(name);
    if (day === undefined) {
      const heading = h('h3', { class: 'day', part: 'day' });
      const list = h('ul', { role: 'list' });
      day = { heading, list, element: h('section', {}, heading, list) };
      this.#days.set(name, day);
    }
    setText(day.heading, name);
    place(day.list, elements);
    return day.element;
  }

  #rows(): ItemView[] {
    return [...this.#views.values()].flatMap((view) => view.rows);
  }

  #setStop(stop: HTMLElement | null): void {
    if (this.#stop !== stop && this.#stop) setAttribute(this.#stop, 'tabindex', -1);
    this.#stop = stop;
    if (stop) setAttribute(stop, 'tabindex', 0);
  }

  #keydown(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    const rows = this.#rows();
    const at = rows.findIndex(({ controls }) => controls.includes(target));
    const row = rows[at];
    if (row === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Delete') return this.actions.archive(row.entry);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    const forward = this.element.matches(':dir(rtl)') ? 'ArrowLeft' : 'ArrowRight';
    const step = event.key === forward ? 1 : /^Arrow(Left|Right)$/.test(event.key) ? -1 : 0;
    if (to === undefined && step === 0) return;
    event.preventDefault();
    event.stopPropagation();
    if (to !== undefined) rows[to]?.opener.focus();
    else row.controls[row.controls.indexOf(target) + step]?.focus();
  }
}
