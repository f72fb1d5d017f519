// <tocsin-bell> and <tocsin-preferences> in the templates of Vue 3. Only types: `import type {} from 'tocsin/vue'`.

import type { HTMLAttributes, PublicProps } from 'vue';
import type { TocsinBell, TocsinBellEventMap, TocsinBellProps } from '../public/tocsin-bell.js';
import type { TocsinPreferences, TocsinPreferencesProps } from '../public/tocsin-preferences.js';

/** `@tocsin:open` */
type Events = { [Name in keyof TocsinBellEventMap as `on${Capitalize<Name>}`]?: (event: TocsinBellEventMap[Name]) => void };
type Common<Element> = HTMLAttributes & Omit<PublicProps, 'ref'> & { ref?: Element | string };

export type TocsinBellVue = new () => TocsinBell & { $props: Common<TocsinBell> & TocsinBellProps & Events };
export type TocsinPreferencesVue = new () => TocsinPreferences & {
  $props: Common<TocsinPreferences> & TocsinPreferencesProps & Pick<Events, 'onTocsin:signed-out'>;
};

declare module 'vue' {
  interface GlobalComponents {
    'tocsin-bell': TocsinBellVue;
    'tocsin-preferences': TocsinPreferencesVue;
  }
}
