// The picture of a row: that of the person who caused the newest one, or initials; else its category's first letter.

import type { Notification } from '../public/tocsin-bell.js';
import { h } from '../shared/dom.js';
import { safeUrl } from './safe-url.js';

/** Decorative: the text names the people. */
export function avatar({ initiator_profile: person, category }: Notification, label: string, lang: string): HTMLElement {
  if (!person) return coloured('mark', category, first(label).toLocaleUpperCase(lang));
  const face = coloured('mark face', person.id, initials(person.name || person.id).toLocaleUpperCase(lang));
  const src = safeUrl(person.avatar_url);
  if (src !== null) {
    const picture = h('img', { src, alt: '', loading: 'lazy', referrerpolicy: 'no-referrer' });
    picture.addEventListener('error', () => picture.remove()); // the initials are below it
    face.append(picture);
  }
  return face;
}

function coloured(kind: string, key: string, letters: string): HTMLElement {
  const mark = h('span', { class: kind, 'aria-hidden': 'true', part: 'mark' }, letters);
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
