// The bell itself, with its badge.

import { button, h, icon, setAttribute, setText } from '../shared/dom.js';
import { BELL } from './icons.js';
import type { Language } from './words.js';

const MOST = 99;

/** The text of the badge and in the page's title; empty at zero. */
export function short(count: number | null): string {
  return !count ? '' : count > MOST ? `${MOST}+` : String(count);
}

export class BellButton {
  readonly #badge = h('span', { class: 'badge', part: 'badge', 'aria-hidden': 'true' });
  readonly element = button('bell', 'button', icon(BELL), this.#badge);

  constructor() {
    setAttribute(this.element, 'popovertarget', 'panel');
    setAttribute(this.element, 'aria-haspopup', 'dialog');
  }

  /** `shown`: the number in the badge. The name of the button has that of the unread ones. */
  render(count: number | null, shown: number | null, open: boolean, language: Language): void {
    setText(this.#badge, shown && shown <= MOST ? language.number(shown) : short(shown));
    this.#badge.hidden = !shown;
    const unread = count === null ? '' : `, ${language.say('unread', count)}`;
    setAttribute(this.element, 'aria-label', language.say('title') + unread);
    setAttribute(this.element, 'aria-expanded', String(open));
    setAttribute(this.element, 'lang', language.lang);
  }
}
