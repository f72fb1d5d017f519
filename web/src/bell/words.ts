// The bell's own texts in English; those of other languages are loaded. Others come from the app or from Intl.

import type { Word } from '../public/tocsin-bell.js';

const en = {
  title: 'Notifications',
  unread: '{n} unread' as Word,
  markAll: 'Mark all as read',
  close: 'Close',
  settings: 'Notification settings',
  all: 'All',
  unreadOnly: 'Unread',
  category: 'Category',
  everyCategory: 'All categories',
  markRead: 'Mark as read',
  markUnread: 'Mark as unread',
  archive: 'Archive',
  isUnread: 'Unread:',
  older: 'Show older ones',
  loading: 'Loading …',
  empty: 'Nothing here yet',
  caughtUp: 'You have read everything',
  offline: 'No connection. What you see may be out of date.',
  failed: 'Your notifications can’t be loaded right now.',
  retry: 'Try again',
  signedOut: 'You are signed out',
  marked: '{n} marked as read' as Word,
  undo: 'Undo',
  notDone: 'That did not work. Try again.',
  arrived: 'New: {title}',
  arrivedMany: { one: '{n} new notification', other: '{n} new notifications' } as Word,
  archived: 'Archived',
  markedUnread: 'Marked as unread',
  archivedOnly: 'Archive',
  unarchive: 'Back to the inbox',
  archiveEmpty: 'Nothing is archived',
  many: { one: '{n} notification', other: '{n} notifications' } as Word,
  chosen: 'You chose: {title}',
  cancelled: 'This was cancelled',
  replaced: 'A newer notification has replaced this one',
  expired: 'The time for this is over',
  signIn: 'Sign in again',
};

export type Words = Record<keyof typeof en, Word>;

/** Languages with a file in src/languages: the service has it at `/assets/tocsin-bell.de.json`. */
const OTHERS = /^(de|ar)$/;
const RIGHT_TO_LEFT = /^(ar|he|fa|ur|ps|sd|ug|yi|dv|ckb)\b/;

/** Texts, numbers and dates of one language. */
export class Language {
  /** The language of texts, dates and numbers: one that there are texts of. */
  readonly lang: string;
  readonly dir: 'ltr' | 'rtl';
  readonly #words: Record<string, Word>;
  readonly #plural: Intl.PluralRules;

  /** `loaded`: the texts of another language, as soon as they are there. `own`: the host's. */
  constructor(locale: string, loaded: Record<string, Word> | null, own: Record<string, Word>) {
    const known = loaded !== null || Object.keys(own).length > 0 || /^en\b/.test(locale);
    this.lang = known ? locale : 'en';
    this.dir = RIGHT_TO_LEFT.test(this.lang) ? 'rtl' : 'ltr';
    this.#words = { ...en, ...loaded, ...own };
    this.#plural = new Intl.PluralRules(this.lang);
  }

  say(word: keyof Words, n = 0, title = ''): string {
    const found = this.#words[word]!;
    const text = typeof found === 'string' ? found : (found[this.#plural.select(n)] ?? found.other ?? '');
    return text.replace('{n}', () => this.number(n)).replace('{title}', () => title);
  }

  number(n: number): string {
    return new Intl.NumberFormat(this.lang).format(n);
  }
}

const loading = new Map<string, Promise<Record<string, Word> | null>>();

/** The texts of a language other than English; null if there are none, or they can't be loaded now. */
export function load(base: string, locale: string): Promise<Record<string, Word> | null> {
  const [language = ''] = locale.split('-');
  const url = `${base}assets/tocsin-bell.${language}.json`;
  if (!OTHERS.test(language)) return Promise.resolve(null);
  const words = loading.get(url) ?? read(url);
  loading.set(url, words);
  return words;
}

async function read(url: string): Promise<Record<string, Word> | null> {
  const response = await fetch(url, { credentials: 'omit' }).catch(() => null);
  if (response?.ok) return response.json();
  loading.delete(url); // another language change tries again
  return null;
}

/** The first of the tags that Intl accepts. */
export function pick(...wished: (string | null | undefined)[]): string {
  for (const tag of wished) {
    try {
      if (tag) return Intl.getCanonicalLocales(tag)[0] ?? 'en';
    } catch {
      // not a tag
    }
  }
  return 'en';
}
