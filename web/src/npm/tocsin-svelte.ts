// <tocsin-bell> and <tocsin-preferences> in the templates of Svelte 4 and 5. Only types: `import type {} from 'tocsin/svelte'`.

import type { HTMLAttributes } from 'svelte/elements';
import type { TocsinBell, TocsinBellEventMap, TocsinBellProps } from '../public/tocsin-bell.js';
import type { TocsinPreferences, TocsinPreferencesProps } from '../public/tocsin-preferences.js';

/** Svelte 5: `ontocsin:open={…}`; Svelte 4: `on:tocsin:open={…}`. */
type Events = {
  [Name in keyof TocsinBellEventMap as `on${Name}` | `on:${Name}`]?: (event: TocsinBellEventMap[Name]) => void;
};

export type TocsinBellSvelte = HTMLAttributes<TocsinBell> & TocsinBellProps & Events;
export type TocsinPreferencesSvelte = HTMLAttributes<TocsinPreferences> &
  TocsinPreferencesProps &
  Pick<Events, 'ontocsin:signed-out' | 'on:tocsin:signed-out'>;

declare module 'svelte/elements' {
  interface SvelteHTMLElements {
    'tocsin-bell': TocsinBellSvelte;
    'tocsin-preferences': TocsinPreferencesSvelte;
  }
}
