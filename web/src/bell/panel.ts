// The panel: a popover next to the bell, or on a phone a sheet over the whole page.

import type { Inbox } from '../client/inbox.js';
import type { Notification } from '../public/tocsin-bell.js';
import { h, icon, setAttribute, setText } from '../shared/dom.js';
import { BELL, CHECK_ALL, CLOSE, GEAR } from './icons.js';
import type { ItemActions } from './item.js';
import { ListView } from './list.js';
import { place } from './position.js';
import type { Language, Words } from './words.js';

interface Listener extends ItemActions {
  toggled(open: boolean): void;
  /** It closes with the focus inside. */
  leaves(): void;
  markAll(): void;
  undo(): void;
  /** Changes something, and shows the error if it fails. */
  attempt(work: () => Promise<unknown>): void;
}

const PHONE = '(max-width: 480px)';
const NEAR = '240px'; // older notifications are loaded this far below the visible part

export class Panel {
  readonly element = h('dialog', { popover: 'auto', id: 'panel', part: 'panel', 'aria-labelledby': 'title' });
  readonly #title = h('h2', { id: 'title', part: 'title', tabindex: -1, autofocus: true });
  readonly #markAll = h('button', { type: 'button', class: 'icon', part: 'action' }, icon(...CHECK_ALL));
  readonly #settings = h('a', { class: 'icon', part: 'action' }, icon(...GEAR));
  readonly #close = h('button', { type: 'button', class: 'icon', part: 'action' }, icon(...CLOSE));
  readonly #all = h('button', { type: 'button' });
  readonly #unread = h('button', { type: 'button' });
  readonly #filter = h('div', { role: 'group', class: 'switch', part: 'filter' }, this.#all, this.#unread);
  readonly #category = h('select', { part: 'category' });
  readonly #banner = h('p', { class: 'banner', role: 'status', part: 'banner' });
  readonly #state = h('div', { class: 'state', part: 'state' });
  readonly #more = h('button', { type: 'button', class: 'more' });
  readonly #list: ListView;
  readonly #scroller: HTMLElement;
  readonly #told = h('span', { dir: 'auto' });
  readonly #undo = h('button', { type: 'button', part: 'undo' });
  readonly #toast = h('div', { class: 'toast', part: 'toast' }, this.#told, this.#undo);
  readonly #live = h('div', { class: 'sr', role: 'status' });
  #place = () => {};
  #shown: string | null = null; // the state that is drawn
  /** The last error, until the next action. */
  notice = '';

  constructor(
    private readonly inbox: Inbox,
    private readonly listener: Listener,
  ) {
    this.#list = new ListView({
      ...listener,
      archive: (item) => {
        if (this.#hasFocus(item)) this.#list.focusBeside(item, this.#title);
        listener.archive(item);
      },
    });
    this.#scroller = h('div', { class: 'scroller' }, this.#state, this.#list.element, this.#more);
    this.element.append(
      h('div', { class: 'head', part: 'header' }, this.#title, this.#markAll, this.#settings, this.#close),
      h('div', { class: 'filters', part: 'filters' }, this.#filter, this.#category),
      this.#banner,
      this.#scroller,
      this.#toast,
      this.#live,
    );
    this.#listen();
  }

  get open(): boolean {
    return this.element.open || this.element.matches(':popover-open');
  }

  /** The place for announcements while the rest of the page is inert. */
  get live(): HTMLElement | null {
    return this.element.matches(':modal') ? this.#live : null;
  }

  show(button: HTMLElement): void {
    if (this.open) return;
    this.#place = () => place(this.element, button);
    this.#place();
    for (const moved of ['resize', 'scroll']) addEventListener(moved, this.#place, true);
    if (matchMedia(PHONE).matches) {
      this.element.showModal();
      this.listener.toggled(true);
    } else this.element.showPopover();
  }

  hide(): void {
    if (this.live) this.element.close();
    else if (this.open) this.element.hidePopover();
  }

  slideIn(id: number): void {
    this.#list.slideIn(id);
  }

  /** Changes the language. */
  forget(): void {
    this.#list.forget();
    this.#shown = null;
  }

  render(language: Language, categories: Map<string, string>, settings: string | null): void {
    const { inbox } = this;
    const say = (word: keyof Words) => language.say(word);
    setAttribute(this.element, 'lang', language.lang);
    setAttribute(this.element, 'dir', language.dir);
    setText(this.#title, say('title'));
    name(this.#markAll, say('markAll'));
    setAttribute(this.#markAll, 'aria-disabled', String(!inbox.count)); // disabled, it would lose the focus
    name(this.#settings, say('settings'));
    this.#settings.hidden = settings === null;
    setAttribute(this.#settings, 'href', settings);
    name(this.#close, say('close'));
    setAttribute(this.#filter, 'aria-label', say('title'));
    setText(this.#all, say('all'));
    setText(this.#unread, say('unreadOnly'));
    setAttribute(this.#all, 'aria-pressed', String(!inbox.unreadOnly));
    setAttribute(this.#unread, 'aria-pressed', String(inbox.unreadOnly));
    this.#renderCategories(categories, language);
    this.#list.render(inbox.items, language, categories);
    setText(this.#more, say('older'));
    this.#more.hidden = !inbox.more || inbox.items.length === 0;
    this.#banner.hidden = inbox.link !== 'offline';
    setText(this.#banner, this.#banner.hidden ? '' : say('offline'));
    this.#renderState(language);
    this.#toast.hidden = !inbox.marked && !this.notice;
    this.#undo.hidden = !!this.notice;
    setText(this.#told, this.notice || (inbox.marked ? language.say('marked', inbox.marked) : ''));
    setText(this.#undo, say('undo'));
  }

  #renderCategories(categories: Map<string, string>, language: Language): void {
    const names = ['', ...categories.keys()];
    this.#category.hidden = names.length < 3;
    setAttribute(this.#category, 'aria-label', language.say('category'));
    const known = [...this.#category.options].map((option) => option.value);
    if (!known.length || known.join() !== names.join()) {
      this.#category.replaceChildren(...names.map((each) => h('option', { value: each }, categories.get(each) ?? '')));
    }
    setText(this.#category.options[0]!, language.say('everyCategory'));
    this.#category.value = this.inbox.category;
  }

  /** Shown instead of an empty list, or while it is loading. */
  #renderState(language: Language): void {
    const { inbox } = this;
    const none = inbox.items.length === 0;
    const state =
      inbox.link === 'signed-out'
        ? 'signedOut'
        : !none
          ? ''
          : inbox.listing === 'failed'
            ? 'failed'
            : inbox.listing !== 'ready'
              ? 'loading'
              : inbox.unreadOnly
                ? 'caughtUp'
                : 'empty';
    this.#list.element.hidden = state === 'signedOut';
    setAttribute(this.#scroller, 'aria-busy', String(state === 'loading'));
    if (this.#shown === state) return;
    this.#shown = state;
    this.#state.hidden = !state;
    setAttribute(this.#state, 'class', `state ${state}`);
    const say = (word: keyof Words) => language.say(word);
    if (state === 'loading') {
      const rows = Array.from({ length: 5 }, () => h('span', { class: 'bone' }));
      this.#state.replaceChildren(h('span', { class: 'sr' }, say('loading')), ...rows);
    } else if (state === 'failed') {
      const retry = h('button', { type: 'button', part: 'retry' }, say('retry'));
      retry.addEventListener('click', () => void inbox.load());
      this.#state.replaceChildren(h('p', { role: 'alert' }, say('failed')), retry);
    } else if (state) {
      const [first, second] = [say(state), say(`${state}More` as keyof Words)];
      this.#state.replaceChildren(icon(...BELL), h('p', { class: 'first' }, first), h('p', {}, second));
    }
  }

  #listen(): void {
    const { inbox, listener } = this;
    this.element.addEventListener('beforetoggle', (event) => {
      const { activeElement } = this.element.getRootNode() as ShadowRoot;
      if (event.newState === 'closed' && this.element.contains(activeElement)) listener.leaves();
    });
    const toggled = () => {
      listener.toggled(this.open);
      if (!this.open) for (const moved of ['resize', 'scroll']) removeEventListener(moved, this.#place, true);
    };
    this.element.addEventListener('toggle', toggled);
    this.element.addEventListener('close', toggled);
    this.#close.addEventListener('click', () => this.hide());
    this.#markAll.addEventListener('click', () => inbox.count && listener.markAll());
    this.#undo.addEventListener('click', () => {
      this.#title.focus(); // the button disappears
      listener.undo();
    });
    this.#all.addEventListener('click', () => void inbox.show({ unreadOnly: false }));
    this.#unread.addEventListener('click', () => void inbox.show({ unreadOnly: true }));
    this.#category.addEventListener('change', () => void inbox.show({ category: this.#category.value }));
    this.#more.addEventListener('click', () => listener.attempt(() => inbox.loadMore()));
    const near = { root: this.#scroller, rootMargin: `0px 0px ${NEAR}` };
    const seen = new IntersectionObserver(([entry]) => {
      if (entry?.isIntersecting && inbox.link !== 'offline') inbox.loadMore().catch(() => {}); // the button remains
    }, near);
    seen.observe(this.#more);
  }

  #hasFocus(item: Notification): boolean {
    const root = this.element.getRootNode() as ShadowRoot;
    return root.activeElement?.closest('li')?.dataset.id === String(item.id);
  }
}

function name(element: HTMLElement, text: string): void {
  setAttribute(element, 'aria-label', text);
  setAttribute(element, 'title', text);
}
