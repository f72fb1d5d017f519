// Parts that several sections share.

import { h, drawing } from '../shared/element.js';
import type { Speech } from './speech.js';

const UNDO = 'M4 9h10a5 5 0 0 1 0 10h-4M4 9l4-4M4 9l4 4';
export const LOCK = 'M7 11V8a5 5 0 0 1 10 0v3M6 11h12v9H6z';

let count = 0;

/** Unique in this document's shadow root. */
export function newId(): string {
  return `t${++count}`;
}

/** A section with its heading and a line that describes it. */
export function section(id: string, title: string, hint: string, ...children: Node[]): HTMLElement {
  return h(
    'section',
    { id, class: 'section', part: `section ${id}`, 'aria-labelledby': `${id}-title` },
    h('h2', { id: `${id}-title`, tabindex: -1 }, title),
    h('p', { class: 'hint' }, hint),
    ...children,
  );
}

/** A line for an error next to its element; hidden while empty. */
export function failure(id = newId()): HTMLParagraphElement {
  return h('p', { class: 'failure', id, hidden: true });
}

export function showFailure(line: HTMLElement, text: string | null): void {
  line.hidden = text === null;
  line.textContent = text ?? '';
}

export function undoIcon(): SVGSVGElement {
  return drawing(UNDO, 14);
}

export interface Zones {
  readonly element: HTMLSelectElement;
  show(zone: string): void;
}

/** A choice of time zones: the likely ones first. */
export function zones(speech: Speech, suggested: string[], onchange: (zone: string) => void): Zones {
  const likely = h('optgroup', { label: speech.say('suggested') });
  const all = h('optgroup', { label: speech.say('allZones') });
  const select = h('select', { onchange: () => onchange(select.value) }, likely, all);
  const known = new Set<string>();
  const add = (group: HTMLElement, zone: string) => {
    if (known.has(zone)) return;
    known.add(zone);
    group.append(h('option', { value: zone }, zone.replaceAll('_', ' ')));
  };
  for (const zone of suggested) add(likely, zone);
  for (const zone of Intl.supportedValuesOf('timeZone')) add(all, zone);
  return {
    element: select,
    show(zone) {
      add(likely, zone);
      select.value = zone;
    },
  };
}

/** The time zone of the reader's own clock. */
export function ownZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
}

/** Calls a function after a pause in typing: a time is typed in several steps, each of which is a change. */
export class AfterTyping {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly call: () => void,
    private readonly milliseconds = 500,
  ) {}

  /** Whether something was typed that the function was not called for yet. */
  get waits(): boolean {
    return this.#timer !== undefined;
  }

  readonly typed = (): void => {
    this.cancel();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.call();
    }, this.milliseconds);
  };

  cancel(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
