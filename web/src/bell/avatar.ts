// The picture of a row: the people who caused it, by picture or initials; without any, its category's first letter.

import { h } from '../shared/dom.js';
import type { Entry, Initiator } from './entry.js';
import { safeUrl } from './safe-url.js';

const SHOWN = 2;

/** Decorative: the text names the people. */
export function avatars({ initiators, latest }: Entry, category: string, lang: string): HTMLElement {
  const shown = initiators.slice(0, SHOWN);
  const faces = shown.map((person) => face(person, lang));
  if (faces.length === 0) faces.push(coloured('mark', latest.category, first(category).toLocaleUpperCase(lang)));
  return h('span', { class: faces.length > 1 ? 'faces two' : 'faces', 'aria-hidden': 'true', part: 'mark' }, ...faces.reverse());
}

function face(person: Initiator, lang: string): HTMLElement {
  const letters = coloured('mark face', person.id, initials(person.name || person.id).toLocaleUpperCase(lang));
  const src = safeUrl(person.avatar_url ?? null);
  if (src === null) return letters;
  const picture = h('img', { src, alt: '', width: 36, height: 36, loading: 'lazy', referrerpolicy: 'no-referrer' });
  picture.addEventListener('error', () => picture.remove()); // the initials are below it
  letters.append(picture);
  return letters;
}

function coloured(kind: string, key: string, letters: string): HTMLElement {
  const mark = h('span', { class: kind }, letters);
  mark.style.setProperty('--hue', String(hue(key)));
  return mark;
}

/** `Alice Moreau`: AM. */
function initials(name: string): string {
  const words = name.split(/[\s._-]+/).filter((word) => /^\p{L}/u.test(word));
  return first(words[0] ?? name) + (words.length > 1 ? first(words.at(-1)!) : '');
}

function first(word: string): string {
  return [...word][0] ?? '';
}

/** A hue in degrees, always the same for a person or a category; the golden angle makes neighbours differ. */
function hue(key: string): number {
  let sum = 0;
  for (const char of key) sum = (sum * 31 + char.charCodeAt(0)) % 9973;
  return Math.round(sum * 137.5) % 360;
}
