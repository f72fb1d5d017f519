// What is shown in place of the list: it is loading, empty, could not be loaded, or nobody is signed in.

import { button, h, icon, setAttribute } from '../shared/dom.js';
import { safeUrl } from './safe-url.js';
import { BELL } from './icons.js';
import type { GroupedInbox } from './grouped_inbox.js';
import { bone } from './item.js';
import type { Language } from './words.js';

const ROWS = 5;
const EMPTY = { all: 'empty', unread: 'caughtUp', archived: 'archiveEmpty' } as const;

type Shown = 'signedOut' | 'failed' | 'loading' | (typeof EMPTY)[keyof typeof EMPTY] | '';

interface Listener {
  retry(): void;
  signIn(): void;
}

export class StateView {
  readonly element = h('div', { class: 'state', part: 'state' });
  #drawn: string | null = null;

  constructor(private readonly listener: Listener) {}

  /** When the language changes, it is drawn again. */
  forget(): void {
    this.#drawn = null;
  }

  /** Returns what is shown; '' while the list is. `signIn` is the URL of the host's page for it. */
  render(inbox: GroupedInbox, language: Language, signIn: string | null): Shown {
    const state = stateOf(inbox);
    const drawn = [state, signIn].join();
    if (drawn === this.#drawn) return state;
    this.#drawn = drawn;
    this.element.hidden = !state;
    setAttribute(this.element, 'class', `state ${state}`);
    if (state === 'loading') this.element.replaceChildren(h('span', { class: 'sr' }, language.say('loading')), ...Array.from({ length: ROWS }, () => bone('div')));
    else if (state) this.#explain(state, language, signIn);
    return state;
  }

  #explain(state: Exclude<Shown, '' | 'loading'>, language: Language, signIn: string | null): void {
    const failed = state === 'failed';
    this.element.replaceChildren(icon(BELL), h('p', { class: 'first', role: failed && 'alert' }, language.say(state)));
    if (!failed && state !== 'signedOut') return;
    const url = failed ? null : safeUrl(signIn);
    const again = language.say('signIn');
    const way = failed
      ? button(null, 'retry', language.say('retry'))
      : url
        ? h('a', { href: url, part: 'sign-in' }, again)
        : button(null, 'sign-in', again);
    if (!url) way.addEventListener('click', () => (failed ? this.listener.retry() : this.listener.signIn()));
    this.element.append(way);
  }
}

function stateOf({ link, entries, listing, tab }: GroupedInbox): Shown {
  if (link === 'signed-out') return 'signedOut';
  if (entries.length > 0) return '';
  if (listing === 'failed') return 'failed';
  return listing === 'ready' ? EMPTY[tab] : 'loading';
}
