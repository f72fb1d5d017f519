// <tocsin-preferences>: a person's choices of notifications.

import type { TocsinPreferences as Public } from '../public/tocsin-preferences.js';
import { Api, baseOf, type Problem } from '../shared/api.js';
import { Credentials, type GetToken } from '../shared/credentials.js';
import { ElementBase, h, set, upgrade } from '../shared/element.js';
import { identify } from '../shared/identity.js';
import { Channels } from './channels.js';
import { type Context, reason, type Section } from './context.js';
import { Devices } from './devices.js';
import { Digest } from './digest.js';
import { Notice } from './notice.js';
import css from './preferences.css';
import { Quiet } from './quiet.js';
import { Speech } from './speech.js';
import { Topics, webAddress } from './topics.js';

const LOOK_AGAIN = 1000; // milliseconds between two checks for changes of another tab

export type DescribeTopic = (topic: string) => { label: string; href?: string } | null;

export class TocsinPreferences extends ElementBase implements Omit<Public, keyof HTMLElement> {
  static readonly observedAttributes = ['api', 'token', 'locale', 'sign-in'];

  readonly #root: ShadowRoot;
  #getToken: GetToken | null = null;
  #describeTopic: DescribeTopic | null = null;
  #sections: Section[] = [];
  #started: AbortController | null = null;
  #starting = false;
  #looked = 0;
  #nextLook: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    super();
    this.#root = this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    this.#root.adoptedStyleSheets = [sheet];
  }

  /** Tocsin's URL; default: where the module was loaded from. */
  get api(): string {
    const address = new URL(this.getAttribute('api') ?? baseOf(import.meta.url), document.baseURI).href;
    return address.endsWith('/') ? address : `${address}/`;
  }

  set api(value: string) {
    this.setAttribute('api', value);
  }

  get token(): string | null {
    return this.getAttribute('token');
  }

  set token(value: string | null) {
    set(this, { token: value });
  }

  get theme(): 'auto' | 'light' | 'dark' | null {
    return this.getAttribute('theme') as 'auto' | 'light' | 'dark' | null;
  }

  set theme(value: 'auto' | 'light' | 'dark' | null) {
    set(this, { theme: value });
  }

  get locale(): string | null {
    return this.getAttribute('locale');
  }

  set locale(value: string | null) {
    set(this, { locale: value });
  }

  /** Returns a token of the signed-in person; called again when it is refused. */
  get getToken(): GetToken | null {
    return this.#getToken;
  }

  set getToken(value: GetToken | null) {
    this.#getToken = value;
    this.#startSoon();
  }

  /** The host's own name for a topic, and its link. */
  get describeTopic(): DescribeTopic | null {
    return this.#describeTopic;
  }

  set describeTopic(value: DescribeTopic | null) {
    this.#describeTopic = value;
    this.#startSoon();
  }

  connectedCallback(): void {
    upgrade(this, ['getToken', 'describeTopic', 'api', 'token', 'theme', 'locale']);
    this.#startSoon();
  }

  disconnectedCallback(): void {
    this.#started?.abort();
    this.#started = null;
  }

  attributeChangedCallback(): void {
    this.#startSoon();
  }

  /** Runs once for all properties that are set at the same time. */
  #startSoon(): void {
    if (this.#starting) return;
    this.#starting = true;
    queueMicrotask(() => {
      this.#starting = false;
      if (this.isConnected) void this.#start();
    });
  }

  async #start(): Promise<void> {
    this.#started?.abort();
    const started = (this.#started = new AbortController());
    const speech = new Speech(this.locale || document.documentElement.lang || navigator.language);
    const credentials = new Credentials(this.token, this.#getToken);
    const notice = new Notice(speech);
    const body = h('div', { class: 'body', 'aria-busy': 'true' }, skeleton(speech));
    const frame = h('div', { class: 'frame', lang: speech.language, dir: speech.direction }, body, notice.element);
    const context: Context = {
      api: new Api(this.api, credentials),
      speech,
      announce: (sentence, undo) => notice.say(sentence, undo),
      saving: () => {
        const saving = this.#sections.some((section) => section.saving);
        set(frame, { 'data-saving': saving });
        notice.saving(saving);
      },
      failed: (problem) => {
        const why = reason(problem, speech);
        notice.announce(why);
        return why;
      },
      topic: (name) => this.#describeTopic?.(name) ?? null,
    };
    this.#root.replaceChildren(frame);
    try {
      const [recipient, sections] = await Promise.all([identify(context.api), read(context)]);
      if (started.signal.aborted) return;
      this.#sections = sections;
      body.replaceChildren(...sections.map(({ element }) => element));
      this.#follow(context, recipient, started.signal);
    } catch (problem) {
      if (!started.signal.aborted) body.replaceChildren(this.#unloaded(problem as Problem, speech));
    }
    set(body, { 'aria-busy': null });
  }

  /** Loads changes of other tabs and devices when this page becomes visible again. */
  #follow(context: Context, recipient: string, signal: AbortSignal): void {
    const look = async () => {
      if (document.hidden || signal.aborted) return;
      clearTimeout(this.#nextLook);
      const early = LOOK_AGAIN - (performance.now() - this.#looked);
      if (early > 0) return void (this.#nextLook = setTimeout(look, early));
      this.#looked = performance.now();
      const now = await identify(context.api).catch(({ status }: Problem) => (status === 401 ? null : recipient));
      if (signal.aborted) return;
      // another person may have signed in in another tab
      if (now !== recipient) return void this.#start();
      // what can't be loaded now stays as it was; changing it shows the error
      await Promise.allSettled(this.#sections.map((section) => section.refresh()));
    };
    this.#looked = performance.now();
    for (const name of ['focus', 'online', 'pageshow']) window.addEventListener(name, look, { signal });
    document.addEventListener('visibilitychange', look, { signal });
  }

  #unloaded(problem: Problem, speech: Speech): HTMLElement {
    const away = problem.status === 401;
    if (away) this.dispatchEvent(new CustomEvent('tocsin:signed-out', { bubbles: true, composed: true }));
    const again = h('button', { type: 'button', class: 'plain', onclick: () => void this.#start() }, speech.say('again'));
    const url = away ? webAddress(this.getAttribute('sign-in')) : null;
    return h(
      'div',
      { class: 'unloaded', role: 'alert' },
      h('p', { class: 'name' }, speech.say(away ? 'signedOut' : 'unloaded')),
      h('p', {}, away ? speech.say('signedOutHow') : reason(problem, speech)),
      url && h('a', { href: url, class: 'button', part: 'sign-in' }, speech.say('signIn')),
      again,
    );
  }
}

async function read(context: Context): Promise<Section[]> {
  const topics = Topics.read(context);
  const devices = Devices.read(context);
  for (const each of [topics, devices]) each.catch(() => undefined); // reported below, with the others
  const channels = await Channels.read(context);
  const { categories } = channels;
  return Promise.all([channels, Digest.read(context, categories), Quiet.read(context, categories), topics, devices]);
}

function skeleton(speech: Speech): HTMLElement {
  const lines = Array.from({ length: 6 }, () => h('span', { class: 'line' }));
  return h('div', { class: 'skeleton', role: 'status' }, h('span', { class: 'unseen' }, speech.say('loading')), ...lines);
}
