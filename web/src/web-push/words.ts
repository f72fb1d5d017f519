// The texts of the offer, and the name of this browser in the list of devices.

const WORDS = {
  en: {
    offer: 'Notify me in this browser',
    on: 'You will be notified in this browser, also while this page is closed.',
    refused: 'This browser blocks notifications of this page. You can allow them in its settings.',
    failed: 'That did not work. Try again',
    name: '{browser} on {system}',
  },
  de: {
    offer: 'In diesem Browser benachrichtigen',
    on: 'Sie werden in diesem Browser benachrichtigt, auch wenn diese Seite geschlossen ist.',
    refused: 'Dieser Browser blockiert Benachrichtigungen dieser Seite. Sie können sie in seinen Einstellungen erlauben.',
    failed: 'Das hat nicht geklappt. Noch einmal versuchen',
    name: '{browser} auf {system}',
  },
  ar: {
    offer: 'أشعرني في هذا المتصفح',
    on: 'ستصلك الإشعارات في هذا المتصفح، حتى عندما تكون هذه الصفحة مغلقة.',
    refused: 'هذا المتصفح يحظر إشعارات هذه الصفحة. يمكنك السماح بها في إعداداته.',
    failed: 'لم ينجح ذلك. حاول مرة أخرى',
    name: '{browser} على {system}',
  },
};

const BROWSERS = [
  [/Firefox|FxiOS/, 'Firefox'],
  [/Edg/, 'Edge'],
  [/OPR/, 'Opera'],
  [/Chrome|CriOS/, 'Chrome'],
  [/Safari/, 'Safari'],
] as const;

const SYSTEMS = [
  [/iPhone|iPad/, 'iOS'],
  [/Android/, 'Android'],
  [/Windows/, 'Windows'],
  [/Mac/, 'macOS'],
  [/CrOS/, 'ChromeOS'],
  [/Linux/, 'Linux'],
] as const;

/** Texts of a language, else in English. */
export function texts(locale: string) {
  const language = locale.slice(0, 2).toLowerCase();
  const { name, ...found } = WORDS[language in WORDS ? (language as keyof typeof WORDS) : 'en'];
  const label = (agent: string) =>
    name.replace('{browser}', named(BROWSERS, agent)).replace('{system}', named(SYSTEMS, agent));
  return { ...found, label };
}

function named(table: readonly (readonly [RegExp, string])[], agent: string): string {
  return table.find(([pattern]) => pattern.test(agent))?.[1] ?? '?';
}
