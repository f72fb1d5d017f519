// The notice of the last change, with its undo; also the page's live region.

import { drawing, h } from '../shared/element.js';
import { undoIcon } from './parts.js';
import type { Speech } from './speech.js';

const CROSS = 'M6 6l12 12M18 6 6 18';
const SHOWN_AFTER = 400; // milliseconds; a change that is saved sooner needs no notice
const SHOWN = 12_000; // milliseconds; later, the change can be undone at its own switch

export class Notice {
  readonly element: HTMLElement;
  readonly #announced = h('p', { class: 'unseen', role: 'status' });
  readonly #text = h('p', { role: 'status', 'aria-live': 'polite' });
  readonly #undo: HTMLButtonElement;
  readonly #close: HTMLButtonElement;
  readonly #busy: HTMLElement;
  #back: (() => void) | undefined;
  #from: HTMLElement | null = null; // the element that had the focus before
  #showing: ReturnType<typeof setTimeout> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(speech: Speech) {
    this.#undo = h('button', { type: 'button', class: 'undo' }, undoIcon(), speech.say('undo'));
    this.#undo.addEventListener('click', () => {
      const back = this.#back;
      this.#leave();
      back?.();
    });
    const close = h('button', { type: 'button', class: 'close', 'aria-label': speech.say('dismiss') }, drawing(CROSS, 16));
    close.addEventListener('click', () => this.#leave());
    this.#close = close;
    this.#busy = h('span', { class: 'busy', 'aria-hidden': 'true', hidden: true }, speech.say('saving'));
    const line = h('div', { class: 'line', part: 'notice' }, this.#busy, this.#text, this.#undo, close);
    this.element = h('div', { class: 'notice' }, this.#announced, line);
    this.element.addEventListener('keydown', (event) => event.key === 'Escape' && this.#leave());
    this.#hide();
  }

  /** Whether a change is being saved; screen readers announce only its end. */
  saving(saving: boolean): void {
    clearTimeout(this.#showing);
    const show = () => {
      this.#busy.hidden = !saving;
      this.element.classList.toggle('busy', saving);
    };
    if (saving) this.#showing = setTimeout(show, SHOWN_AFTER);
    else show();
  }

  /** Announces text to screen readers that is shown elsewhere on the page. */
  announce(sentence: string): void {
    this.#hide();
    this.#announced.textContent = sentence;
  }

  say(sentence: string, undo?: () => void): void {
    const focused = (this.element.getRootNode() as ShadowRoot).activeElement;
    if (!this.element.contains(focused)) this.#from = focused as HTMLElement | null;
    this.#back = undo;
    this.#undo.hidden = undo === undefined;
    this.#close.hidden = false;
    this.#announced.textContent = '';
    this.#text.textContent = sentence;
    this.element.classList.add('shown');
    this.#wait();
  }

  /** The notice stays while the pointer or the focus is on it. */
  #wait(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.element.matches(':hover, :focus-within') ? this.#wait() : this.#hide()), SHOWN);
  }

  /** Returns the focus to where it was before. */
  #leave(): void {
    const from = this.element.matches(':focus-within') ? this.#from : null;
    this.#hide();
    if (from?.isConnected) from.focus();
  }

  #hide(): void {
    clearTimeout(this.#timer);
    this.element.classList.remove('shown');
    this.#text.textContent = '';
    this.#undo.hidden = this.#close.hidden = true;
    this.#back = undefined;
  }
}
