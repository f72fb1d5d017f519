// The element: its attributes and events, and the connections of its parts.

import type { Notification, TocsinBell as Public, Word } from '../public/tocsin-bell.js';
import { Api, baseOf } from '../shared/api.js';
import { Credentials, type GetToken } from '../shared/credentials.js';
import { h, setAttribute, setText } from '../shared/dom.js';
import { ElementBase, upgrade } from '../shared/element.js';
import { Session } from '../shared/session.js';
import sheetText from './bell.css';
import { BellButton, short } from './button.js';
import type { Entry } from './entry.js';
import { GroupedInbox } from './grouped_inbox.js';
import { type Links, Panel } from './panel.js';
import { safeUrl } from './safe-url.js';
import { TitleCount } from './title.js';
import { Language, load, pick } from './words.js';

const TICK = 20_000; // milliseconds; relative times change every minute
const TOGETHER = 800; // milliseconds; arrivals within are announced together
const REFLECTED = ['token', 'theme', 'locale', 'badge'] as const;
let sheet: CSSStyleSheet | null = null;

export class TocsinBell extends ElementBase implements Omit<Public, keyof HTMLElement> {
  static observedAttributes = ['api', 'token', 'locale', 'title-count', 'settings', 'sign-in', 'badge'];

  declare token: string | null;
  declare theme: 'auto' | 'light' | 'dark' | null;
  declare locale: string | null;
  declare badge: 'unread' | 'unseen' | null;

  #getToken: GetToken | null = null;
  #words: Record<string, Word> = {};
  #wanted = 'en';
  #language = new Language('en', null, {});
  #categories: Map<string, string> | null = null;
  #inbox: GroupedInbox | null = null;
  #session: Session | null = null;
  #api: Api | null = null;
  #panel: Panel | null = null;
  #clock = 0;
  #starting = false;
  #opening = false; // once it has started
  #rendering = false;
  #listing: unknown; // what was shown last
  #signedOut = false;
  #sentCounts = '';
  #arrived: Notification[] = [];
  readonly #button = new BellButton();
  readonly #live = h('div', { class: 'sr', role: 'status' });
  readonly #title = new TitleCount();

  constructor() {
    super();
    if (sheet === null) (sheet = new CSSStyleSheet()).replaceSync(sheetText);
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [sheet];
    root.append(this.#button.element, this.#live);
    this.#button.element.addEventListener('click', (event) => {
      event.preventDefault(); // the browser's own opening has no position and no phone layout
      if (this.open || this.#opening) this.hide();
      else this.show();
    });
  }

  get api(): string {
    const address = new URL(this.getAttribute('api') ?? baseOf(import.meta.url), document.baseURI).href;
    return address.endsWith('/') ? address : `${address}/`;
  }

  set api(value: string) {
    setAttribute(this, 'api', value);
  }

  get getToken(): GetToken | null {
    return this.#getToken;
  }

  set getToken(value: GetToken | null) {
    this.#getToken = value;
    this.#renew();
  }

  get words(): Record<string, Word> {
    return this.#words;
  }

  set words(value: Record<string, Word>) {
    this.#words = value;
    this.#speak();
  }

  get count(): number | null {
    return this.#inbox?.count ?? null;
  }

  get unseen(): number | null {
    return this.#inbox?.unseen ?? null;
  }

  get open(): boolean {
    return this.#panel?.open ?? false;
  }

  override focus(options?: FocusOptions): void {
    this.#button.element.focus(options);
  }

  show(): void {
    this.#opening = this.#panel === null;
    this.#panel?.show(this.#button.element);
  }

  hide(): void {
    this.#opening = false;
    this.#panel?.hide();
  }

  connectedCallback(): void {
    upgrade(this, ['getToken', 'words', 'api', ...REFLECTED]);
    this.#speak();
    this.#restart();
    const push = `${this.api}assets/tocsin-web-push.js`;
    if (this.hasAttribute('web-push')) void import(push);
  }

  disconnectedCallback(): void {
    this.#stop();
  }

  attributeChangedCallback(name: string): void {
    if (name === 'api') this.#restart();
    else if (name === 'token') this.#renew();
    else if (name === 'locale') this.#speak();
    else this.#render();
  }

  /** Runs once for all properties that are set together. */
  #restart(): void {
    if (this.#starting || !this.isConnected) return;
    this.#starting = true;
    void scriptsRan().then(() => {
      this.#starting = false;
      this.#stop();
      if (this.isConnected) this.#start();
    });
  }

  /** Another token: the list stays, unless it is another person's. */
  #renew(): void {
    if (this.#api === null || this.#starting) return this.#restart();
    this.#api.credentials = this.#credentials;
    void this.#session!.renewed();
  }

  get #credentials(): Credentials {
    return new Credentials(this.token, this.#getToken);
  }

  #start(): void {
    const api = (this.#api = new Api(this.api, this.#credentials));
    const inbox = (this.#inbox = new GroupedInbox(api, {
      changed: () => this.#render(),
      arrived: (notification) => this.#announceArrival(notification),
    }));
    this.#panel = new Panel(inbox, {
      ...this.#changes(inbox),
      signIn: () => this.#signIn(),
      attempt: (work) => this.#attempt(work),
      toggled: (open) => this.#toggled(open),
      leaves: () => this.focus(),
    });
    this.shadowRoot!.append(this.#panel.element);
    this.#session = new Session(api, {
      event: (name, data) => inbox.take(name, data),
      missed: () => inbox.missed(),
      forget: () => inbox.forget(),
      link: (link) => {
        if (link === 'signed-out' && !this.#signedOut) this.#dispatch('tocsin:signed-out', null);
        this.#signedOut = link === 'signed-out';
        inbox.connect(link);
        if (link === 'live' && this.open) this.#fill();
      },
    });
    this.#session.start();
    this.#render();
    if (this.#opening) this.show();
  }

  /** What a person can do in the list. */
  #changes(inbox: GroupedInbox) {
    return {
      open: (entry: Entry, event: Event) => this.#openItem(inbox, entry, event),
      setRead: (entry: Entry, read: boolean) => this.#attempt(() => inbox.setRead(entry, read)),
      archive: (entry: Entry) => this.#attempt(() => inbox.archive(entry), 'archived'),
      press: (entry: Entry, key: string) => this.#attempt(() => this.#press(inbox, entry, key)),
      toggle: (entry: Entry) => this.#attempt(() => inbox.toggle(entry)),
      moreOf: (entry: Entry) => this.#attempt(() => inbox.loadMembers(entry)),
      markAll: () => this.#attempt(() => inbox.markAll().then((n) => this.#announce(this.#language.say('marked', n)))),
      undo: () => this.#attempt(() => inbox.undo()),
    };
  }

  #stop(): void {
    this.#session?.close();
    this.#panel?.element.remove();
    this.#inbox = this.#session = this.#panel = this.#api = this.#categories = null;
    this.#title.show('');
    clearInterval(this.#clock);
  }

  #speak(): void {
    const page = this.closest('[lang]')?.getAttribute('lang');
    const locale = (this.#wanted = pick(this.locale, page, navigator.language));
    void load(this.api, locale).then((words) => {
      if (this.#wanted !== locale) return;
      this.#language = new Language(locale, words, this.#words);
      this.#panel?.forget();
      this.#categories = null; // their labels have a language
      if (this.open) void this.#loadCategories();
      this.#render();
    });
  }

  /** Runs once for all changes together. */
  #render(): void {
    if (this.#rendering) return;
    this.#rendering = true;
    queueMicrotask(() => {
      this.#rendering = false;
      const { count, unseen } = this;
      const state = `${count} ${unseen}`;
      if (count !== null && state !== this.#sentCounts) this.#dispatch('tocsin:count', { count, unseen });
      this.#sentCounts = state;
      const shown = this.badge === 'unseen' ? unseen : count;
      this.#button.render(count, shown, this.open, this.#language);
      this.#title.show(this.hasAttribute('title-count') ? short(shown) : '');
      if (this.open) this.#panel?.render(this.#language, this.#categories ?? new Map(), this.#links);
      const listing = this.open && this.#inbox?.listing;
      if (listing !== this.#listing) this.#see();
      this.#listing = listing;
    });
  }

  get #links(): Links {
    return { settings: this.getAttribute('settings'), signIn: this.getAttribute('sign-in') };
  }

  #toggled(open: boolean): void {
    this.#render();
    clearInterval(this.#clock);
    if (!open) return;
    this.#clock = setInterval(() => this.#render(), TICK);
    this.#fill();
  }

  /** Loads what the open panel lacks. */
  #fill(): void {
    const inbox = this.#inbox!;
    if (inbox.listing === 'new' || inbox.listing === 'failed') void inbox.load();
    if (this.#categories === null) void this.#loadCategories();
  }

  /** What is listed in the open panel is seen. Without a connection, it stays unseen. */
  #see(): void {
    if (this.open && this.#inbox?.listing === 'ready' && !document.hidden) this.#inbox.seen().catch(() => {});
  }

  async #loadCategories(): Promise<void> {
    const [api, language] = [this.#api!, this.#language];
    const path = `event-types/?locale=${encodeURIComponent(language.lang)}`;
    const found = await api.json<{ results: { category: string; label: string }[] }>('GET', path).catch(() => null);
    if (found === null || api !== this.#api || language !== this.#language) return;
    this.#categories = new Map(found.results.map(({ category, label }) => [category, label]));
    this.#render();
  }

  #openItem(inbox: GroupedInbox, entry: Entry, event: Event): void {
    if (!this.#dispatch('tocsin:open', entry.latest)) event.preventDefault();
    this.#attempt(() => inbox.setRead(entry, true));
    const { ctrlKey, metaKey, shiftKey, type, currentTarget } = event as MouseEvent;
    const here = type === 'click' && !(ctrlKey || metaKey || shiftKey);
    if (here && currentTarget instanceof HTMLAnchorElement) this.hide();
  }

  /** Presses a button of a notification, and follows its link if it has one. */
  async #press(inbox: GroupedInbox, entry: Entry, key: string): Promise<void> {
    const { latest } = entry;
    if (!(await inbox.press(entry, key))) return;
    const action = latest.actions?.find((each) => each.key === key);
    this.#announce(this.#language.say('chosen', 1, action?.label ?? key));
    const url = safeUrl(action?.url ?? null);
    if (this.#dispatch('tocsin:action', { notification: latest, key }) && url !== null) location.assign(url);
  }

  /** Without a page for it: asks the host's callback again, or the cookie. */
  #signIn(): void {
    if (this.#dispatch('tocsin:sign-in', null)) this.#renew();
  }

  #announceArrival(notification: Notification): void {
    this.#arrived.push(notification);
    queueMicrotask(() => queueMicrotask(() => this.#panel?.slideIn(notification.id)));
    if (this.#arrived.length > 1) return;
    setTimeout(() => {
      const arrived = this.#arrived;
      this.#arrived = [];
      const [only] = arrived;
      if (!this.isConnected || !only) return;
      this.#see();
      const many = arrived.length > 1;
      this.#announce(
        many ? this.#language.say('arrivedMany', arrived.length) : this.#language.say('arrived', 1, only.title),
      );
    }, TOGETHER);
  }

  /** A polite announcement for screen readers. */
  #announce(text: string): void {
    const live = this.#panel?.live ?? this.#live;
    setText(live, ''); // so that the same text is announced again
    setTimeout(() => setText(live, text), 50);
  }

  async #attempt(work: () => Promise<unknown>, done?: 'archived'): Promise<void> {
    const panel = this.#panel!;
    panel.notice = '';
    try {
      await work();
      if (done) this.#announce(this.#language.say(done));
    } catch {
      panel.notice = this.#language.say('notDone');
      this.#announce(panel.notice);
    }
    this.#render();
  }

  #dispatch(name: string, detail: unknown): boolean {
    return this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }));
  }
}

for (const name of REFLECTED) {
  Object.defineProperty(TocsinBell.prototype, name, {
    get(this: TocsinBell) {
      return this.getAttribute(name);
    },
    set(this: TocsinBell, value: string | null) {
      setAttribute(this, name, value);
    },
  });
}

/** Waits for the page's own scripts, which set the token and listen to events. */
async function scriptsRan(): Promise<void> {
  const [page] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
  if (document.readyState === 'complete' || page?.domContentLoadedEventStart) return;
  await new Promise((resolve) => document.addEventListener('DOMContentLoaded', resolve));
}
