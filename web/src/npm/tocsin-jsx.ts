// <tocsin-bell> and <tocsin-preferences> in the JSX of React 18 and 19.

import type { DetailedHTMLProps, HTMLAttributes } from 'react';
import type { TocsinBell, TocsinBellEventMap, TocsinBellProps } from '../public/tocsin-bell.js';
import type { TocsinPreferences, TocsinPreferencesProps } from '../public/tocsin-preferences.js';

/** React 19 listens to an event by its name after `on`; JSX needs a spread for the colon: `{...{ 'ontocsin:open': open }}`. */
type Events = { [Name in keyof TocsinBellEventMap as `on${Name}`]?: ((event: TocsinBellEventMap[Name]) => void) | undefined };
type Common<Element> = DetailedHTMLProps<HTMLAttributes<Element>, Element> & { class?: string | undefined };

export type TocsinBellJsx = Common<TocsinBell> & TocsinBellProps & Events;
export type TocsinPreferencesJsx = Common<TocsinPreferences> & TocsinPreferencesProps & Pick<Events, 'ontocsin:signed-out'>;

declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
      'tocsin-bell': TocsinBellJsx;
      'tocsin-preferences': TocsinPreferencesJsx;
    }
  }
}
