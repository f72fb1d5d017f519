// The panel: a popover next to the bell, or on a phone a sheet over the whole page.

import { button, h, icon, setAttribute, setText } from '../shared/dom.js';
import type { Entry } from './entry.js';
import { CHECK_ALL, CLOSE, SETTINGS } from './icons.js';
import type { GroupedInbox, Tab, Undoable } from './grouped_inbox.js';
import type { ItemActions } from './item.js';
import { ListView } from './list.js';
import { place } from './position.js';
import { StateView } from './state.js';
import type { Language, Words } from './words.js';

interface Listener extends ItemActions {
  toggled(open: boolean): void;
  /** It closes with the focus inside. */
  leaves(): void;
  markAll(): void;
  undo(): void;
  signIn(): void;
  /** Changes something, and shows the error if it fails. */
  attempt(work: () => Promise<unknown>): void;
}

/** The attributes of the bell that the panel shows. */
export interface Links {
  settings: string | null;
  signIn: string | null;
}

const PHONE = '(max-width: 480px)';
const NEAR = '240px'; // older notifications are loaded this far below the visible part
const UNDO_TIME = 10_000; // milliseconds; longer while the pointer or the focus is on it
const TABS: readonly (readonly [Tab, keyof Words])[] = [
  ['all', 'all'],
  ['unread', 'unreadOnly'],
  ['archived', 'archivedOnly'],
];

export class Panel {
  readonly element = h('dialog', { popover: 'auto', id: 'panel', part: 'panel', 'aria-labelledby': 'title' });
  readonly #title = h('h2', { id: 'title', part: 'title', tabindex: -1, autofocus: true });
  readonly #markAll = button('icon', 'action', icon(CHECK_ALL));
  readonly #settings = h('a', { class: 'icon', part: 'action' }, icon(SETTINGS));
  readonly #close = button('icon', 'action', icon(CLOSE));
  readonly #named = [
    [this.#markAll, 'markAll'],
    [this.#settings, 'settings'],
    [this.#close, 'close'],
  ] as const;
  readonly #tabs = TABS.map(([tab, word]) => ({ tab, word, button: button(null, null) }));
  readonly #filter = h('div', { role: 'group', class: 'switch', part: 'filter' }, ...this.#tabs.map(({ button }) => button));
  readonly #category = h('select', { part: 'category' });
  readonly #banner = h('p', { class: 'banner', role: 'status', part: 'banner' });
  readonly #state: StateView;
  readonly #more = button('more', null);
  readonly #list: ListView;
  readonly #scroller: HTMLElement;
  readonly #seen: IntersectionObserver;
  readonly #text = h('span', { dir: 'auto' });
  readonly #undo = button(null, 'undo');
  readonly #toast = h('div', { class: 'toast', part: 'toast' }, this.#text, this.#undo);
  readonly #live = h('div', { class: 'sr', role: 'status' });
  #place = () => {};
  #loaded = ''; // the state in which it was last observed whether older ones are needed
  #undoable: Undoable | null = null; // the one that the toast shows
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The last error, until the next action. */
  notice = '';

  constructor(
    private readonly inbox: GroupedInbox,
    private readonly listener: Listener,
  ) {
    this.#state = new StateView({ retry: () => void inbox.load(), signIn: () => listener.signIn() });
    const archive = (entry: Entry) => {
      this.#list.leave(entry, this.#title);
      listener.archive(entry);
    };
    this.#list = new ListView({ ...listener, archive });
    this.#scroller = h('div', { class: 'scroller' }, this.#state.element, this.#list.element, this.#more);
    this.element.append(
      h('div', { class: 'head', part: 'header' }, this.#title, this.#markAll, this.#settings, this.#close),
      h('div', { class: 'filters', part: 'filters' }, this.#filter, this.#category),
      this.#banner,
      this.#scroller,
      this.#toast,
      this.#live,
    );
    const near = { root: this.#scroller, rootMargin: `0px 0px ${NEAR}` };
    this.#seen = new IntersectionObserver(([entry]) => {
      if (entry?.isIntersecting && inbox.link !== 'offline') inbox.loadMore().catch(() => {}); // the button remains
    }, near);
    this.#listenToToggles();
    this.#listenToKeys();
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
    this.#state.forget();
  }

  render(language: Language, categories: Map<string, string>, { settings, signIn }: Links): void {
    const { inbox } = this;
    const say = (word: keyof Words) => language.say(word);
    setAttribute(this.element, 'lang', language.lang);
    setAttribute(this.element, 'dir', language.dir);
    setText(this.#title, say('title'));
    for (const [button, word] of this.#named) {
      setAttribute(button, 'aria-label', say(word));
      setAttribute(button, 'title', say(word));
    }
    setAttribute(this.#markAll, 'aria-disabled', String(!inbox.count)); // disabled, it would lose the focus
    this.#settings.hidden = settings === null;
    setAttribute(this.#settings, 'href', settings);
    setAttribute(this.#filter, 'aria-label', say('title'));
    for (const { tab, word, button } of this.#tabs) {
      setText(button, say(word));
      setAttribute(button, 'aria-pressed', String(inbox.tab === tab));
    }
    this.#renderCategories(categories, language);
    const state = this.#state.render(inbox, language, signIn);
    this.#list.element.hidden = state === 'signedOut';
    this.#list.render(inbox.entries, language, categories);
    setAttribute(this.#scroller, 'aria-busy', String(state === 'loading'));
    setText(this.#more, say('older'));
    this.#more.hidden = !inbox.more || inbox.entries.length === 0;
    this.#observeMore();
    this.#banner.hidden = inbox.link !== 'offline' || state === 'failed' || state === 'loading';
    setText(this.#banner, this.#banner.hidden ? '' : say('offline'));
    this.#renderToast(language);
  }

  /** Observes the end of the list again after each change: it may still be in view. */
  #observeMore(): void {
    const loaded = this.inbox.link + this.inbox.entries.length;
    if (loaded === this.#loaded) return;
    this.#loaded = loaded;
    this.#seen.disconnect();
    this.#seen.observe(this.#more);
  }

  #renderToast(language: Language): void {
    const { undoable } = this.inbox;
    if (undoable !== this.#undoable) this.#hideLater((this.#undoable = undoable));
    this.#toast.hidden = !undoable && !this.notice;
    this.#undo.hidden = !!this.notice;
    setText(this.#text, this.notice || (undoable ? language.say(undoable.done, undoable.n) : ''));
    setText(this.#undo, language.say('undo'));
  }

  #hideLater(shown: Undoable | null): void {
    clearTimeout(this.#timer);
    if (shown === null) return;
    this.#timer = setTimeout(() => {
      if (this.#toast.matches(':hover, :focus-within')) this.#hideLater(shown);
      else if (this.inbox.undoable === shown) this.inbox.forgetUndo();
    }, UNDO_TIME);
  }

  #renderCategories(categories: Map<string, string>, language: Language): void {
    const labels = [language.say('everyCategory'), ...categories.values()];
    const shown = [...this.#category.options].map((option) => option.text);
    this.#category.hidden = categories.size < 2;
    setAttribute(this.#category, 'aria-label', language.say('category'));
    if (shown.join('\n') !== labels.join('\n')) {
      const names = ['', ...categories.keys()];
      this.#category.replaceChildren(...names.map((value, at) => h('option', { value }, labels[at]!)));
    }
    this.#category.value = this.inbox.category;
  }

  #listenToToggles(): void {
    const { listener } = this;
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
  }

  /** The arrow keys lead into the list from any part but a choice, which uses them itself. */
  #listenToKeys(): void {
    this.element.addEventListener('keydown', (event) => {
      const { key, ctrlKey, metaKey, altKey, target } = event;
      if (key === 'z' && (ctrlKey || metaKey) && this.inbox.undoable) this.listener.undo();
      else if (!/^Arrow(Up|Down)$/.test(key) || altKey || target === this.#category || !this.#list.enter()) return;
      event.preventDefault();
    });
  }

  #listen(): void {
    const { inbox, listener } = this;
    this.#close.addEventListener('click', () => this.hide());
    this.#markAll.addEventListener('click', () => inbox.count && listener.markAll());
    this.#undo.addEventListener('click', () => {
      this.#title.focus(); // the button disappears
      listener.undo();
    });
    for (const { tab, button } of this.#tabs) button.addEventListener('click', () => void inbox.show({ tab }));
    this.#category.addEventListener('change', () => void inbox.show({ category: this.#category.value }));
    this.#more.addEventListener('click', () => listener.attempt(() => inbox.loadMore()));
  }
}
