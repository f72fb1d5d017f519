// The list by day, updated from the inbox element by element.

import type { Notification } from '../public/tocsin-bell.js';
import { h, place, setText } from '../shared/dom.js';
import { type ItemActions, ItemView } from './item.js';
import { Times } from './time.js';
import type { Language } from './words.js';

interface Day {
  element: HTMLElement;
  heading: HTMLElement;
  list: HTMLElement;
}

export class ListView {
  readonly element = h('div', { class: 'days', part: 'list' });
  #views = new Map<number, ItemView>();
  #days = new Map<string, Day>();
  #times: Times | null = null;

  constructor(private readonly actions: ItemActions) {
    this.element.addEventListener('keydown', (event) => this.#keydown(event));
  }

  /** When the language changes, all elements are created again. */
  forget(): void {
    this.#times = null;
    this.#days.clear();
  }

  render(items: readonly Notification[], language: Language, categories: Map<string, string>): void {
    const now = new Date();
    const times = (this.#times ??= new Times(language.lang));
    const views = new Map<number, ItemView>();
    const days = new Map<string, Element[]>();
    for (const item of items) {
      const known = this.#views.get(item.id);
      const view = known?.item === item ? known : new ItemView(item, this.actions);
      view.update(language, times, now, categories.get(item.category) ?? item.category);
      views.set(item.id, view);
      const day = times.day(new Date(item.created_at), now);
      if (!days.get(day)?.push(view.element)) days.set(day, [view.element]);
    }
    this.#views = views;
    place(this.element, [...days].map(([name, elements]) => this.#day(name, elements)));
    for (const name of this.#days.keys()) if (!days.has(name)) this.#days.delete(name);
  }

  /** Marks it as new; the style sheet has its look. */
  slideIn(id: number): void {
    const { element } = this.#views.get(id) ?? {};
    element?.classList.add('new');
    element?.addEventListener('animationend', () => element.classList.remove('new'), { once: true });
  }

  /** The focus moves to the item that takes its place. */
  focusBeside(item: Notification, otherwise: HTMLElement): void {
    const openers = this.#openers();
    const at = openers.indexOf(this.#views.get(item.id)!.opener);
    (openers[at + 1] ?? openers[at - 1] ?? otherwise).focus();
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

  #openers(): HTMLElement[] {
    return [...this.element.querySelectorAll<HTMLElement>('.open')];
  }

  #keydown(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    const openers = this.#openers();
    const at = openers.findIndex((opener) => opener.closest('li') === target.closest('li'));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: openers.length - 1 }[event.key];
    if (at < 0 || to === undefined) {
      const view = event.key === 'Delete' && [...this.#views.values()].find((each) => each.opener === target);
      if (view) this.actions.archive(view.item);
      return;
    }
    event.preventDefault();
    openers[to]?.focus();
  }
}
