// The bell's own texts. Others come from the app or from Intl.

import type { Word } from '../public/tocsin-bell.js';

const en = {
  title: 'Notifications',
  unread: { one: '{n} unread', other: '{n} unread' } as Word,
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
  marked: { one: '{n} marked as read', other: '{n} marked as read' } as Word,
  undo: 'Undo',
  notDone: 'That did not work. Please try again.',
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

const de: Words = {
  title: 'Benachrichtigungen',
  unread: '{n} ungelesen',
  markAll: 'Alle als gelesen markieren',
  close: 'Schließen',
  settings: 'Benachrichtigungen einstellen',
  all: 'Alle',
  unreadOnly: 'Ungelesen',
  category: 'Kategorie',
  everyCategory: 'Alle Kategorien',
  markRead: 'Als gelesen markieren',
  markUnread: 'Als ungelesen markieren',
  archive: 'Archivieren',
  isUnread: 'Ungelesen:',
  older: 'Ältere anzeigen',
  loading: 'Wird geladen …',
  empty: 'Noch nichts da',
  caughtUp: 'Alles gelesen',
  offline: 'Keine Verbindung. Was Sie sehen, kann veraltet sein.',
  failed: 'Ihre Benachrichtigungen können gerade nicht geladen werden.',
  retry: 'Noch einmal versuchen',
  signedOut: 'Sie sind abgemeldet',
  marked: '{n} als gelesen markiert',
  undo: 'Rückgängig',
  notDone: 'Das hat nicht geklappt. Bitte noch einmal versuchen.',
  arrived: 'Neu: {title}',
  arrivedMany: { one: '{n} neue Benachrichtigung', other: '{n} neue Benachrichtigungen' },
  archived: 'Archiviert',
  markedUnread: 'Als ungelesen markiert',
  archivedOnly: 'Archiv',
  unarchive: 'Zurück zum Posteingang',
  archiveEmpty: 'Nichts ist archiviert',
  many: { one: '{n} Benachrichtigung', other: '{n} Benachrichtigungen' },
  chosen: 'Ihre Wahl: {title}',
  cancelled: 'Das wurde abgesagt',
  replaced: 'Eine neuere Benachrichtigung hat diese ersetzt',
  expired: 'Die Zeit dafür ist abgelaufen',
  signIn: 'Wieder anmelden',
};

const ar: Words = {
  title: 'الإشعارات',
  unread: '{n} غير مقروء',
  markAll: 'تحديد الكل كمقروء',
  close: 'إغلاق',
  settings: 'إعدادات الإشعارات',
  all: 'الكل',
  unreadOnly: 'غير المقروءة',
  category: 'الفئة',
  everyCategory: 'كل الفئات',
  markRead: 'تحديد كمقروء',
  markUnread: 'تحديد كغير مقروء',
  archive: 'أرشفة',
  isUnread: 'غير مقروء:',
  older: 'عرض الأقدم',
  loading: 'جارٍ التحميل …',
  empty: 'لا شيء هنا بعد',
  caughtUp: 'قرأت كل شيء',
  offline: 'لا يوجد اتصال. قد يكون ما تراه قديمًا.',
  failed: 'يتعذّر تحميل إشعاراتك الآن.',
  retry: 'إعادة المحاولة',
  signedOut: 'لقد سُجّل خروجك',
  marked: {
    one: 'حُدّد إشعار واحد كمقروء',
    two: 'حُدّد إشعاران كمقروءين',
    few: 'حُدّدت {n} إشعارات كمقروءة',
    other: 'حُدّد {n} إشعارًا كمقروء',
  },
  undo: 'تراجع',
  notDone: 'لم ينجح ذلك. يُرجى المحاولة من جديد.',
  arrived: 'جديد: {title}',
  arrivedMany: {
    one: 'إشعار جديد واحد',
    two: 'إشعاران جديدان',
    few: '{n} إشعارات جديدة',
    other: '{n} إشعارًا جديدًا',
  },
  archived: 'أُرشِف',
  markedUnread: 'حُدّد كغير مقروء',
  archivedOnly: 'الأرشيف',
  unarchive: 'إعادة إلى صندوق الوارد',
  archiveEmpty: 'الأرشيف فارغ',
  many: {
    one: 'إشعار واحد',
    two: 'إشعاران',
    few: '{n} إشعارات',
    other: '{n} إشعارًا',
  },
  chosen: 'اخترت: {title}',
  cancelled: 'أُلغي هذا',
  replaced: 'حلّ إشعار أحدث محلّ هذا',
  expired: 'انتهى وقت هذا',
  signIn: 'تسجيل الدخول من جديد',
};

const LANGUAGES: Record<string, Words> = { en, de, ar };
const RIGHT_TO_LEFT = /^(ar|he|fa|ur|ps|sd|ug|yi|dv|ckb)\b/;

/** Texts, numbers and dates of one language. */
export class Language {
  /** A language with texts of ours; dates always use the locale. */
  readonly lang: string;
  readonly dir: 'ltr' | 'rtl';
  readonly #words: Record<string, Word>;
  readonly #plural: Intl.PluralRules;

  constructor(
    readonly locale: string,
    more: Record<string, Word>,
  ) {
    const language = locale.split('-')[0] ?? '';
    this.lang = language in LANGUAGES || Object.keys(more).length > 0 ? locale : 'en';
    this.dir = RIGHT_TO_LEFT.test(this.lang) ? 'rtl' : 'ltr';
    this.#words = { ...(LANGUAGES[language] ?? en), ...more };
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
