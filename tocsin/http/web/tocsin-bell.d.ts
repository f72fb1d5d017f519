/** One notification, as the API returns it. */
export interface Notification {
    id: number;
    event_id: number;
    event_type: string;
    category: string;
    title: string;
    body: string;
    body_html: string | null;
    action_url: string | null;
    metadata: Record<string, unknown>;
    initiator: string | null;
    read: boolean;
    read_at: string | null;
    created_at: string;
}
/** The bell's own words; `{n}`, `{title}` stand for what is told. A word with a count may have one for each plural category. */
export type Word = string | Partial<Record<Intl.LDMLPluralRule, string>>;
/** The element `<tocsin-bell>`. A property with an attribute's name reflects it. */
export declare class TocsinBell extends HTMLElement {
    /** Tocsin's address; where the module was loaded from unless it is set. */
    api: string;
    /** A JWT of the host app. Without it, and without `getToken`, the cookie `tocsin_token` of the same origin counts. */
    token: string | null;
    /** Gets a JWT; asked again whenever the last one has expired or was refused. Null: nobody is signed in. */
    getToken: (() => string | null | Promise<string | null>) | null;
    /** By the page's own `color-scheme` unless it is set; `auto` is by the system's. */
    theme: 'auto' | 'light' | 'dark' | null;
    /** A BCP 47 tag; that of the page unless it is set. */
    locale: string | null;
    /** Words in place of ours, by their names. */
    words: Record<string, Word>;
    /** The unread ones; null while that is not known. */
    readonly count: number | null;
    /** Whether the list is open. */
    readonly open: boolean;
    show(): void;
    hide(): void;
}
export interface TocsinBellEventMap {
    /** Somebody opens a notification. `preventDefault()`: it is marked read, and the page goes nowhere. */
    'tocsin:open': CustomEvent<Notification>;
    /** The count is known, or has changed. */
    'tocsin:count': CustomEvent<{
        count: number;
    }>;
    /** The token or cookie is refused and there is no other. */
    'tocsin:signed-out': CustomEvent<null>;
}
declare global {
    interface HTMLElementTagNameMap {
        'tocsin-bell': TocsinBell;
    }
    interface HTMLElementEventMap extends TocsinBellEventMap {
    }
}
