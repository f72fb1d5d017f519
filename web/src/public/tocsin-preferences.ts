// What hosts see of <tocsin-preferences>. Imports nothing: it is published as it stands.

/** The element `<tocsin-preferences>`. A property with an attribute's name reflects it. */
export declare class TocsinPreferences extends HTMLElement {
  /** Tocsin's address; where the module was loaded from unless it is set. */
  api: string;
  /** A JWT of the host app. Without it, and without `getToken`, the cookie `tocsin_token` of the same origin counts. */
  token: string | null;
  /** Gets a JWT; asked again whenever the last one has expired or was refused. Null: nobody is signed in. */
  getToken: (() => string | null | Promise<string | null>) | null;
  /** Your own name of a topic, and where it leads; null where you know none. */
  describeTopic: ((topic: string) => { label: string; href?: string } | null) | null;
  /** By the page's own `color-scheme` unless it is set; `auto` is by the system's. */
  theme: 'auto' | 'light' | 'dark' | null;
  /** A BCP 47 tag; that of the page unless it is set. */
  locale: string | null;
}

export interface TocsinPreferencesEventMap {
  /** The token or cookie is refused and there is no other. */
  'tocsin:signed-out': CustomEvent<null>;
}

declare global {
  interface HTMLElementTagNameMap {
    'tocsin-preferences': TocsinPreferences;
  }
  interface HTMLElementEventMap extends TocsinPreferencesEventMap {}
}
