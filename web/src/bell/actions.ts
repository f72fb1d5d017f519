// The buttons of a notification, and what was chosen.

import { button, h, icon, setAttribute, setText } from '../shared/dom.js';
import type { Entry } from './entry.js';
import { READ } from './icons.js';
import type { Language } from './words.js';

type Action = NonNullable<Entry['latest']['actions']>[number];

export class ActionsView {
  readonly element = h('div', { class: 'choices', part: 'actions' });
  readonly #outcome = h('span', { dir: 'auto' });
  readonly #chosen = h('p', { class: 'chosen', part: 'outcome' }, icon(READ), this.#outcome);
  readonly #buttons: readonly (readonly [Action, HTMLButtonElement])[];

  /** `press` is called for the buttons of a notification that nobody has pressed yet. */
  constructor(
    private readonly entry: Entry,
    press: (key: string) => void,
  ) {
    this.#buttons = (entry.latest.actions ?? []).map((action) => {
      const shown = button(`choice ${action.style ?? ''}`, 'choice', h('span', { dir: 'auto' }, action.label));
      shown.addEventListener('click', () => entry.pressing || press(action.key));
      return [action, shown] as const;
    });
    this.element.append(...this.#buttons.map(([, shown]) => shown), this.#chosen);
  }

  /** Returns whether the focus was on a button that is hidden now. */
  update(language: Language): boolean {
    const { latest, pressing, over } = this.entry;
    const { actions, acted, title } = latest;
    const ended = !!acted || !!over;
    const leaves = ended && this.element.matches(':focus-within');
    for (const [{ key, label }, shown] of this.#buttons) {
      shown.hidden = ended;
      shown.classList.toggle('busy', pressing === key);
      setAttribute(shown, 'aria-label', `${label}: ${title}`);
      setAttribute(shown, 'aria-busy', String(pressing === key));
      setAttribute(shown, 'aria-disabled', String(!!pressing)); // disabled, it would lose the focus
    }
    this.#chosen.hidden = !ended;
    this.#chosen.classList.toggle('over', acted === null);
    const label = actions?.find(({ key }) => key === acted?.key)?.label ?? acted?.key ?? '';
    setText(this.#outcome, acted ? language.say('chosen', 1, label) : over ? language.say(over) : '');
    return leaves;
  }
}
