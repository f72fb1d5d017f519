import type { Notification } from './tocsin-client.js';
export type { Notification };
/** The bell's own texts, with the placeholders `{n}` and `{title}`. A text with a count may have one for each plural category. */
export type Word = string | Partial<Record<Intl.LDMLPluralRule, string>>;
/** The element `<tocsin-bell>`. A property with an attribute's name reflects it. */
export declare class TocsinBell extends HTMLElement {
    /** Tocsin's URL; default: where the module was loaded from. */
    api: string;
    /** A JWT of the host app. Without it, and without `getToken`, the cookie `tocsin_token` of the same origin is used. */
    token: string | null;
    /** Returns a JWT; called again when the last one has expired or was refused. Null: nobody is signed in. */
    getToken: (() => string | null | Promise<string | null>) | null;
    /** Default: the page's own `color-scheme`; `auto`: the system's. */
    theme: 'auto' | 'light' | 'dark' | null;
    /** A BCP 47 tag; default: the page's language. */
    locale: string | null;
    /** Texts that replace the bell's own, by their names. */
    words: Record<string, Word>;
    /** The number of unread notifications; null while it is not known. */
    readonly count: number | null;
    /** How many of them came after the list that the person saw last; null while it is not known. */
    readonly unseen: number | null;
    /** Which number the badge and the page's title show; default: `unread`. */
    badge: 'unread' | 'unseen' | null;
    /** Whether the list is open. */
    readonly open: boolean;
    show(): void;
    hide(): void;
}
/** What a template of a framework may set: attributes, and properties by their names. */
export interface TocsinBellProps {
    api?: string | undefined;
    token?: string | null | undefined;
    theme?: 'auto' | 'light' | 'dark' | null | undefined;
    locale?: string | null | undefined;
    /** Shows the count before the page's title. */
    'title-count'?: boolean | '' | undefined;
    /** The URL of your page for notification settings. */
    settings?: string | undefined;
    /** The URL of your page for signing in. */
    'sign-in'?: string | undefined;
    badge?: 'unread' | 'unseen' | null | undefined;
    /** Offers pushes to this browser; its value is the path of your service worker, where the service has another origin. */
    'web-push'?: string | boolean | undefined;
    getToken?: TocsinBell['getToken'] | undefined;
    words?: Record<string, Word> | undefined;
}
export interface TocsinBellEventMap {
    /** The person opens a notification. After `preventDefault()` it is marked read, and the browser does not navigate. */
    'tocsin:open': CustomEvent<Notification>;
    /** A count became known, or changed. */
    'tocsin:count': CustomEvent<{
        count: number;
        unseen: number;
    }>;
    /** The person pressed a button of a notification. After `preventDefault()` the browser does not follow the button's URL. */
    'tocsin:action': CustomEvent<{
        notification: Notification;
        key: string;
    }>;
    /** The token or cookie was refused, and there is no other. */
    'tocsin:signed-out': CustomEvent<null>;
    /** The person wants to sign in again. After `preventDefault()` the bell does not ask for a token or the cookie again. */
    'tocsin:sign-in': CustomEvent<null>;
}
declare global {
    interface HTMLElementTagNameMap {
        'tocsin-bell': TocsinBell;
    }
    interface HTMLElementEventMap extends TocsinBellEventMap {
    }
}
