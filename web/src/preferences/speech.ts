// Texts, times, days and lists in the reader's language.

import { ar } from './words.ar.js';
import { de } from './words.de.js';
import { en, type Key } from './words.en.js';

export type { Key };

const WORDS: Record<string, Record<Key, string>> = { ar, de, en };
const RIGHT_TO_LEFT = new Set(['ar']);
const STEPS = [
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
] as const;

export class Speech {
  readonly locale: string;
  readonly language: string;
  readonly direction: 'ltr' | 'rtl';

  /** A BCP 47 locale: its texts, or English ones, and its format of days and times. */
  constructor(locale: string) {
    this.locale = plain(locale);
    const language = this.locale.split('-')[0]!.toLowerCase();
    this.language = language in WORDS ? language : 'en';
    this.direction = RIGHT_TO_LEFT.has(this.language) ? 'rtl' : 'ltr';
  }

  /** `say('nowOn', {channel, what})`: inserted text is isolated if its direction may differ. */
  say(key: Key, values: Record<string, string | number> = {}): string {
    return WORDS[this.language]![key].replace(/\{(\w+)\}/g, (_, name: string) => this.#isolated(values[name] ?? ''));
  }

  channel(name: string): string {
    return name in en ? this.say(name as Key) : name;
  }

  list(names: string[]): string {
    return new Intl.ListFormat(this.#tag, { type: 'conjunction' }).format(names);
  }

  weekday(number: number): string {
    return new Intl.DateTimeFormat(this.#tag, { weekday: 'long', timeZone: 'UTC' }).format(
      new Date(Date.UTC(2024, 0, 1 + number)), // a Monday
    );
  }

  /** `06:00` as this reader writes it. */
  time(clock: string): string {
    const [hour, minute] = clock.split(':').map(Number);
    return new Intl.DateTimeFormat(this.#tag, { timeStyle: 'short', timeZone: 'UTC' }).format(
      new Date(Date.UTC(2024, 0, 1, hour, minute)),
    );
  }

  /** Day and time by the clock of a zone: `Tuesday 06:00`, with the date where a weekday alone is not clear. */
  moment(at: string, timeZone: string): string {
    const date = new Date(at);
    const far = date.getTime() - Date.now() > 6 * 86_400_000;
    const options: Intl.DateTimeFormatOptions = { weekday: 'long', hour: '2-digit', minute: '2-digit' };
    if (far) Object.assign(options, { day: 'numeric', month: 'long' });
    return this.#inZone(options, timeZone).format(date);
  }

  /** `2 hours ago`. */
  ago(at: string): string {
    const seconds = Math.max(0, (Date.now() - new Date(at).getTime()) / 1000);
    const relative = new Intl.RelativeTimeFormat(this.#tag, { numeric: 'auto' });
    if (seconds > 30 * 86_400) return new Intl.DateTimeFormat(this.#tag, { dateStyle: 'medium' }).format(new Date(at));
    const [unit, size] = STEPS.find(([, length]) => seconds >= length) ?? (['second', 1] as const);
    return relative.format(unit === 'second' ? 0 : -Math.floor(seconds / size), unit);
  }

  #inZone(options: Intl.DateTimeFormatOptions, timeZone: string): Intl.DateTimeFormat {
    try {
      return new Intl.DateTimeFormat(this.#tag, { ...options, timeZone });
    } catch {
      return new Intl.DateTimeFormat(this.#tag, { ...options, timeZone: 'UTC', timeZoneName: 'short' });
    }
  }

  /** English texts have an English calendar, for any language of the reader. */
  get #tag(): string {
    const spoken = this.locale.split('-')[0]!.toLowerCase();
    if (spoken !== this.language) return 'en-GB';
    return this.locale.toLowerCase() === 'en' ? 'en-GB' : this.locale;
  }

  /** Puts text between FSI and PDI if its direction differs from the text around it. */
  #isolated(value: string | number): string {
    const text = String(value);
    const against = this.direction === 'rtl' ? /\p{Script=Latin}/u : /[\u0590-\u08ff\ufb1d-\ufefc]/;
    return against.test(text) ? `\u2068${text}\u2069` : text;
  }
}

/** Language, script and region; English if it is not a locale. */
function plain(locale: string): string {
  try {
    return new Intl.Locale(locale.replaceAll('_', '-')).baseName;
  } catch {
    return 'en';
  }
}
