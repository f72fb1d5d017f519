/** The element `<tocsin-preferences>`. A property with an attribute's name reflects it. */
export declare class TocsinPreferences extends HTMLElement {
    /** Tocsin's URL; default: where the module was loaded from. */
    api: string;
    /** A JWT of the host app. Without it, and without `getToken`, the cookie `tocsin_token` of the same origin is used. */
    token: string | null;
    /** Returns a JWT; called again when the last one has expired or was refused. Null: nobody is signed in. */
    getToken: (() => string | null | Promise<string | null>) | null;
    /** Your own name for a topic, and its link; null if you have none. */
    describeTopic: ((topic: string) => {
        label: string;
        href?: string;
    } | null) | null;
    /** Default: the page's own `color-scheme`; `auto`: the system's. */
    theme: 'auto' | 'light' | 'dark' | null;
    /** A BCP 47 tag; default: the page's language. */
    locale: string | null;
}
/** What a template of a framework may set: attributes, and properties by their names. */
export interface TocsinPreferencesProps {
    api?: string | undefined;
    token?: string | null | undefined;
    theme?: 'auto' | 'light' | 'dark' | null | undefined;
    locale?: string | null | undefined;
    getToken?: TocsinPreferences['getToken'] | undefined;
    /** The URL of your page for signing in. */
    'sign-in'?: string | undefined;
    describeTopic?: TocsinPreferences['describeTopic'] | undefined;
}
export interface TocsinPreferencesEventMap {
    /** The token or cookie was refused, and there is no other. */
    'tocsin:signed-out': CustomEvent<null>;
}
declare global {
    interface HTMLElementTagNameMap {
        'tocsin-preferences': TocsinPreferences;
    }
    interface HTMLElementEventMap extends TocsinPreferencesEventMap {
    }
}
