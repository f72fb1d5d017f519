// One notification in the list.

import type { Notification } from '../public/tocsin-bell.js';
import { h, icon, setAttribute, setText } from '../shared/dom.js';
import { ARCHIVE, READ, UNREAD } from './icons.js';
import { richText } from './rich-text.js';
import { safeUrl } from './safe-url.js';
import type { Times } from './time.js';
import type { Language } from './words.js';

export interface ItemActions {
  open(item: Notification, event: Event): void;
  setRead(item: Notification, read: boolean): void;
  archive(item: Notification): void;
}

export class ItemView {
  readonly element: HTMLLIElement;
  /** The element that opens it; the arrow keys move between these. */
  readonly opener: HTMLElement;
  readonly #unread = h('span', { class: 'sr' });
  readonly #mark: HTMLElement;
  readonly #time = h('time');
  readonly #toggle: HTMLButtonElement;
  readonly #archive: HTMLButtonElement;
  readonly #category = h('span');

  constructor(
    readonly item: Notification,
    actions: ItemActions,
  ) {
    const url = safeUrl(item.action_url);
    const title = h('span', { dir: 'auto', part: 'item-title' }, item.title);
    this.opener =
      url === null
        ? h('button', { type: 'button', class: 'open' }, this.#unread, title)
        : h('a', { href: url, class: 'open' }, this.#unread, title);
    this.opener.addEventListener('click', (event) => {
      this.element.classList.add('whole');
      actions.open(item, event);
    });
    this.opener.addEventListener('auxclick', (event) => event.button === 1 && actions.open(item, event));
    this.#toggle = h('button', { type: 'button', class: 'icon', part: 'action' });
    this.#toggle.addEventListener('click', () => actions.setRead(item, !item.read));
    this.#archive = h('button', { type: 'button', class: 'icon', part: 'action' }, icon(...ARCHIVE));
    this.#archive.addEventListener('click', () => actions.archive(item));
    const mark = (this.#mark = h('span', { class: 'mark', 'aria-hidden': 'true', part: 'mark' }));
    this.element = h(
      'li',
      {},
      mark,
      h('div', { class: 'what' }, this.opener, body(item), h('p', { class: 'meta' }, this.#category, this.#time)),
      h('div', { class: 'actions' }, this.#toggle, this.#archive),
    );
    this.element.dataset.id = String(item.id);
    mark.style.setProperty('--hue', String(hue(item.category)));
  }

  update(language: Language, times: Times, now: Date, category: string): void {
    const { item } = this;
    const at = new Date(item.created_at);
    this.element.classList.add('item');
    this.element.classList.toggle('unread', !item.read);
    setAttribute(this.element, 'part', item.read ? 'item' : 'item item-unread');
    setText(this.#mark, [...category][0]?.toLocaleUpperCase(language.lang) ?? '');
    setText(this.#unread, item.read ? '' : `${language.say('isUnread')} `);
    setText(this.#category, category);
    setText(this.#time, times.moment(at, now));
    setAttribute(this.#time, 'datetime', item.created_at);
    setAttribute(this.#time, 'title', times.full(at));
    this.#name(this.#toggle, language.say(item.read ? 'markUnread' : 'markRead'));
    if (this.#toggle.dataset.read !== String(item.read)) {
      this.#toggle.dataset.read = String(item.read);
      this.#toggle.replaceChildren(icon(...(item.read ? UNREAD : READ)));
    }
    this.#name(this.#archive, language.say('archive'));
  }

  #name(button: HTMLElement, name: string): void {
    setAttribute(button, 'title', name);
    setAttribute(button, 'aria-label', `${name}: ${this.item.title}`);
  }
}

function body(item: Notification): HTMLElement | null {
  if (item.body_html) return h('div', { class: 'body rich', dir: 'auto', part: 'item-body' }, richText(item.body_html));
  return item.body ? h('p', { class: 'body', dir: 'auto', part: 'item-body' }, item.body) : null;
}

/** A hue in degrees, always the same for a category; the golden angle makes neighbours differ. */
function hue(category: string): number {
  let sum = 0;
  for (const char of category) sum = (sum * 31 + char.charCodeAt(0)) % 9973;
  return Math.round(sum * 137.5) % 360;
}
