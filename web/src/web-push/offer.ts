// The offer in the bell's panel: a button that asks for the browser's permission.

import type { TocsinBell } from '../public/tocsin-bell.js';
import { Api } from '../shared/api.js';
import { Credentials } from '../shared/credentials.js';
import { button, h, setText } from '../shared/dom.js';
import { BrowserPush } from './subscription.js';
import { texts } from './words.js';

const STYLE = `.push { padding: 10px 18px; border-bottom: 1px solid var(--line); font-size: 0.8125em }
.push button { border: 1px solid var(--line); border-radius: 8px; background: none; color: var(--accent); font: inherit;
  font-weight: 600; padding: 6px 12px; min-height: 32px; cursor: pointer }
.push button:hover { background: var(--hover) }
.push button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }`;

export class PushOffer {
  readonly #button = button(null, 'web-push-button');
  readonly #row = h('div', { class: 'push', part: 'web-push', hidden: true }, this.#button);
  readonly #api: Api;
  readonly #push: BrowserPush;
  #waiting = false;

  constructor(private readonly bell: TocsinBell) {
    const base = bell.api;
    const own = new URL(base).origin === location.origin ? `${base}assets/tocsin-sw.js` : '/tocsin-sw.js';
    this.#api = new Api(base, this.#credentials);
    this.#push = new BrowserPush(this.#api, bell.getAttribute('web-push') || own);
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    const root = bell.shadowRoot!;
    root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
    this.#button.addEventListener('click', () => void this.#turnOn());
    const offer = () => {
      if (bell.open && !this.#row.isConnected) void this.#offer();
    };
    bell.addEventListener('click', offer);
    offer(); // the panel may have been opened while this module was loaded
  }

  /** Closes what was read elsewhere. */
  async counted(): Promise<void> {
    await this.#current.closeRead().catch(() => undefined);
  }

  async #offer(): Promise<void> {
    if (this.#waiting) return;
    this.#waiting = true;
    const state = await this.#current.state().catch(() => 'none');
    this.#waiting = false;
    if (state !== 'off') return;
    setText(this.#button, this.#texts.offer);
    this.#row.hidden = false;
    this.bell.shadowRoot!.querySelector('.filters')?.after(this.#row);
  }

  async #turnOn(): Promise<void> {
    const { on, refused, failed, label } = this.#texts;
    this.#button.disabled = true;
    const done = await this.#current.turnOn(label(navigator.userAgent)).catch(() => null);
    this.#button.disabled = false;
    if (done === null) return setText(this.#button, failed);
    this.#row.setAttribute('role', 'status');
    this.#row.replaceChildren(done ? on : refused);
  }

  get #credentials(): Credentials {
    return new Credentials(this.bell.token, this.bell.getToken);
  }

  /** With the bell's present credentials: the page may have set them after this module was loaded. */
  get #current(): BrowserPush {
    this.#api.credentials = this.#credentials;
    return this.#push;
  }

  get #texts() {
    return texts(this.bell.locale ?? this.bell.closest<HTMLElement>('[lang]')?.lang ?? navigator.language);
  }
}
