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
    /** The initiator, with name and picture where the app gave them. */
    initiator_profile: {
        id: string;
        name: string | null;
        avatar_url: string | null;
    } | null;
    /** What it is about, such as `forum.thread:42`. */
    subject: string | null;
    read: boolean;
    read_at: string | null;
    created_at: string;
    /** Whether the person took it out of the inbox. */
    archived: boolean;
    /** The buttons, if it has any. */
    actions: {
        key: string;
        label: string;
        url: string | null;
        style: "primary" | "danger" | null;
    }[] | null;
    /** Which button was pressed. */
    acted: {
        key: string;
        at: string;
    } | null;
}
/** The badge. */
export interface Count {
    /** The number of unread notifications. */
    count: number;
    /** How many of them came after the list that the person saw last: `seen()`. */
    unseen: number;
}
export interface Filter {
    category?: string;
    event_type?: string;
    /** Only read ones (true), or only unread ones (false). */
    read?: boolean;
    /** Those that were taken out of the inbox, instead of those in it. */
    archived?: boolean;
}
export interface PageOptions {
    /** 1 to 100; 20 by default. */
    limit?: number;
    /** `next` or `previous` of another page. */
    cursor?: string;
}
export interface ListOptions extends Filter, PageOptions {
}
/** A page of a list, the newest first. */
export interface Page<Item> {
    results: Item[];
    /** The cursor of the older page, or null. */
    next: string | null;
    /** The cursor of the newer page, or null. */
    previous: string | null;
}
export interface NotificationPage extends Page<Notification> {
    /** For `markAllRead`, `archiveAll` and `seen`: they change only what this list could show. */
    as_of: string;
}
/** Notifications of one event type and subject as one item. */
export interface Group {
    /** The same in each list as long as the group exists. */
    group_key: string;
    count: number;
    unread: number;
    /** The people who caused them: the three newest, each once. */
    initiators: {
        id: string;
        name: string | null;
        avatar_url: string | null;
    }[];
    /** How many people besides `initiators` caused one of them. */
    others: number;
    /** One line for all of them. */
    title: string;
    latest: Notification;
    oldest_at: string;
    /** Whether there are more than the newest 1,000, to which the numbers apply. */
    capped: boolean;
}
export interface GroupPage extends Page<Group> {
    /** For `readGroup` and `archiveGroup`: only what this list could show. */
    as_of: string;
}
/** How the person's inbox is shown. */
export interface InboxPreferences {
    grouped: boolean;
}
/** Which notifications a change of many is about; all without it. */
export interface Choice {
    category?: string;
    event_type?: string;
    subject?: string;
    as_of?: string;
}
export interface MarkedAll {
    marked: number;
    /** For `undo`; null if nothing was marked. */
    undo: string | null;
}
export interface ArchivedAll {
    archived: number;
    /** For `undo`; null if nothing was archived. */
    undo: string | null;
}
/** What a list did last, for its `undo()`, and with how many notifications. */
export interface Done {
    what: 'read' | 'unread' | 'archived' | 'unarchived' | 'all-read' | 'all-archived';
    n: number;
}
export interface Why {
    channels: {
        channel: string;
        decision: string;
        reason: string;
        sentence: string;
        deliveries: {
            state: string;
            reason: string | null;
            /** Masked. */
            address: string | null;
            attempts: {
                at: string;
                outcome: string;
                reason: string | null;
            }[];
        }[];
    }[];
}
/** By `*`, `category.*` or event type: each channel that the person chose there. */
export type Overrides = Record<string, Record<string, boolean>>;
/** Changes to be merged into the overrides; null inherits again. */
export type OverrideChanges = Record<string, Record<string, boolean | null>>;
export interface Preferences {
    event_types: Record<string, Record<string, boolean>>;
    /** What decides each channel of a type: `default`, `*`, `category.*`, `type` or `mandatory`. */
    sources: Record<string, Record<string, string>>;
    overrides: Overrides;
    mandatory: Record<string, string[]>;
    /** The overrides of email that were set since the person marked a mail as spam. */
    complaints: string[];
}
export interface DigestPreferences {
    frequency: 'off' | 'daily' | 'weekly';
    categories: string[];
    all_categories: boolean;
    /** `HH:MM` */
    send_at: string;
    timezone: string;
    weekday: string;
    next_at: string | null;
}
/** `categories: null` means all categories, also those added later. */
export type DigestChanges = Partial<Omit<DigestPreferences, 'next_at' | 'all_categories' | 'categories'>> & {
    categories?: string[] | null;
};
export interface QuietHours {
    /** `HH:MM`; null: no quiet hours. */
    starts: string | null;
    ends: string | null;
    timezone: string;
}
export interface EventType {
    event_type: string;
    label: string;
    default_channels: string[];
    mandatory_channels: string[];
    priority: string;
    digest: boolean;
    /** Such as `10/1h`: messages to one person on a channel; what is beyond is joined to one later message. */
    throttle: string | null;
}
export interface Category {
    category: string;
    label: string;
    event_types: EventType[];
}
/** A phone's registration. */
export interface NewDevice {
    token: string;
    platform: 'ios' | 'android';
    /** Default: the platform's own. */
    provider?: 'apns' | 'fcm';
    /** Default: `production`. */
    environment?: 'production' | 'sandbox';
    /** The person's name for it. */
    label?: string;
}
/** A browser's registration. */
export interface NewBrowser {
    platform: 'web';
    /** What `PushSubscription.toJSON()` has. */
    subscription: {
        endpoint?: string;
        keys?: Record<string, string>;
    };
    /** The person's name for it. */
    label?: string;
}
export interface Device {
    id: number;
    /** Its last six characters. */
    token: string;
    platform: string;
    provider: string;
    environment: string;
    label: string | null;
    created_at: string;
    registered_at: string;
    disabled_at: string | null;
    disabled_reason: string | null;
}
export type Level = 'all' | 'mentions' | 'muted';
/** A topic that the person follows, or has muted. */
export interface Subscription {
    topic: string;
    level: Level;
}
/** The data of each event of the stream. A later version of the service may send further ones: ignore unknown names. */
export interface StreamEvents {
    /** On connect, and when one of its numbers changes. */
    badge: Count;
    notification: Notification;
    read: {
        ids: number[] | 'all';
        read: boolean;
    };
    archived: {
        ids: number[];
    };
    /** A button was pressed. */
    action: {
        id: number;
        acted: NonNullable<Notification['acted']>;
    };
    /** Back in the inbox. */
    unarchived: {
        ids: number[];
    };
    /** Missed events can't be replayed: read the list again. */
    resync: Record<string, never>;
}
export type StreamEvent = {
    [Name in keyof StreamEvents]: {
        event: Name;
        id: string;
        data: StreamEvents[Name];
    };
}[keyof StreamEvents];
export interface StreamOptions {
    /** The id of the last event that was processed: later ones are replayed. */
    lastEventId?: string;
    /** Ends the stream. */
    signal?: AbortSignal;
}
export interface StreamTicket {
    ticket: string;
    expires_at: string;
    usable_until: string;
    /** For `new EventSource(url)`. */
    url: string;
}
/** The state of the connection to the stream. */
export type Link = 'connecting' | 'live' | 'offline' | 'signed-out';
/** A value that changes: for `useSyncExternalStore` of React, `readable` of Svelte, `shallowRef` of Vue, or alone. */
export interface Store<Value> {
    /** The current value: the same object until it changes. */
    readonly get: () => Value;
    /** Calls `changed` after each change; returns a function that ends this. While somebody subscribes, it is up to date. */
    readonly subscribe: (changed: () => void) => () => void;
}
export interface InboxState {
    /** The loaded notifications, the newest first. */
    items: readonly Notification[];
    /** All unread notifications of the person, whatever the filter; null while it is not known. */
    count: number | null;
    /** How many of them came after the list that the person saw last; null while it is not known. */
    unseen: number | null;
    status: 'loading' | 'ready' | 'failed';
    /** Whether there are older ones: `loadMore()`. */
    more: boolean;
    link: Link;
    /** How many the last `markAllRead()` marked, as long as `undo()` is possible. */
    marked: number;
    /** What `undo()` would take back; null: nothing. */
    done: Done | null;
}
export interface InboxFilter {
    category?: string;
    unreadOnly?: boolean;
    /** What was taken out of the inbox, in place of the inbox. */
    archived?: boolean;
}
/** A list that is kept up to date. Changes of the person appear at once, and are reverted if the service refuses them. */
export interface Inbox extends Store<InboxState> {
    /** Loads the list again. */
    reload(): Promise<void>;
    loadMore(): Promise<void>;
    markRead(id: number): Promise<void>;
    markUnread(id: number): Promise<void>;
    archive(id: number): Promise<void>;
    /** Brings it back into the inbox. */
    unarchive(id: number): Promise<void>;
    /** The list was shown: what it could show is no longer unseen, and stays unread. */
    seen(): Promise<void>;
    /** Marks all that the list could show; returns how many. */
    markAllRead(): Promise<number>;
    /** Takes all that the list could show out of the inbox; returns how many. */
    archiveAll(): Promise<number>;
    /** Takes back what was done last, see `done`. */
    undo(): Promise<void>;
}
export interface ClientOptions {
    /** Tocsin's URL. */
    api: string | URL;
    /** A JWT of the host app. Without it, and without `getToken`, the cookie `tocsin_token` of the same origin is used. */
    token?: string | null;
    /** Returns a JWT; called again when the last one has expired or was refused. Null: nobody is signed in. */
    getToken?: () => string | null | Promise<string | null>;
    /** Default: the global `fetch`. */
    fetch?: typeof fetch;
}
/** One person's notifications. Each method throws `Problem` if the service refuses the call or can't be reached. */
export interface Client {
    /** The badge; null while it is not known. */
    readonly badge: Store<Count | null>;
    /** A list that is kept up to date. All stores of a client, in all tabs of a browser, share one stream. */
    inbox(filter?: InboxFilter): Inbox;
    unreadCount(): Promise<Count>;
    list(options?: ListOptions): Promise<NotificationPage>;
    /** All notifications of a filter, page by page. */
    all(filter?: Filter): AsyncIterable<Notification>;
    /** The inbox with notifications of one event type and subject as one item. */
    groups(options?: ListOptions): Promise<GroupPage>;
    /** The notifications of a group, the newest first. */
    groupMembers(groupKey: string, options?: PageOptions): Promise<NotificationPage>;
    readGroup(groupKey: string, options?: {
        as_of?: string;
    }): Promise<MarkedAll>;
    /** Puts a group that was read back to unread. */
    unreadGroup(groupKey: string, options?: {
        as_of?: string;
    }): Promise<MarkedAll>;
    /** `undo` is for `undo`; null if nothing was archived. */
    archiveGroup(groupKey: string, options?: {
        as_of?: string;
    }): Promise<{
        undo: string | null;
    }>;
    get(id: number): Promise<Notification>;
    why(id: number): Promise<Why>;
    markRead(id: number): Promise<Notification>;
    markUnread(id: number): Promise<Notification>;
    archive(id: number): Promise<void>;
    /** Brings it back into the inbox. */
    unarchive(id: number): Promise<Notification>;
    /** Marks what the list with this `as_of` could show as seen; without it, all until now. It stays unread. */
    seen(as_of?: string): Promise<Count>;
    markAllRead(options?: Choice): Promise<MarkedAll>;
    archiveAll(options?: Choice & {
        read?: boolean;
    }): Promise<ArchivedAll>;
    /** Takes a change of many back, by its `undo`; returns how many are as they were before. */
    undo(undo: string): Promise<{
        undone: number;
    }>;
    /**
     * The events of a connection of its own, which reconnects by itself without losing or repeating one. Throws `Problem`
     * when the credentials are refused and there are no others.
     */
    stream(options?: StreamOptions): AsyncIterable<StreamEvent>;
    /** For `EventSource`, which can't send a token. */
    streamTicket(): Promise<StreamTicket>;
    preferences(): Promise<Preferences>;
    setPreferences(overrides: OverrideChanges): Promise<Preferences>;
    digest(): Promise<DigestPreferences>;
    setDigest(changes: DigestChanges): Promise<DigestPreferences>;
    quietHours(): Promise<QuietHours>;
    setQuietHours(hours: Omit<QuietHours, 'timezone'> & {
        timezone?: string;
    }): Promise<QuietHours>;
    inboxPreferences(): Promise<InboxPreferences>;
    setInboxPreferences(changes: Partial<InboxPreferences>): Promise<InboxPreferences>;
    eventTypes(locale?: string): Promise<Category[]>;
    devices(): Promise<Device[]>;
    registerDevice(device: NewDevice | NewBrowser): Promise<Device>;
    /** By its whole token. */
    unregisterDevice(token: string): Promise<void>;
    subscriptions(options?: {
        limit?: number;
        cursor?: string;
        topic?: string;
    }): Promise<Page<Subscription>>;
    subscribe(topic: string, level?: Level): Promise<Subscription>;
    unsubscribe(topic: string): Promise<void>;
    /** Any other call for people; `path` is below `/api/`. Undefined if the response has no content. */
    request<Result>(method: string, path: string, body?: unknown): Promise<Result>;
    /** Uses other credentials, perhaps another person's: the stores show that person. */
    signIn(credentials: Pick<ClientOptions, 'token' | 'getToken'>): void;
    /** Ends the shared stream; the stores keep their last values. */
    close(): void;
}
export declare function createClient(options: ClientOptions): Client;
/** An error response (RFC 9457). */
export declare class Problem extends Error {
    /** The HTTP status; 0: no response. */
    readonly status: number;
    /** Milliseconds until a retry, if the service named them. */
    readonly retryAfter: number | null;
    readonly fields: readonly {
        field: string;
        message: string;
    }[];
    /** Why a button can't be pressed any more: `chosen`, `cancelled`, `replaced` or `expired`. */
    readonly reason: string | null;
    /** Nobody is signed in, or the person may not do this. */
    readonly isSignedOut: boolean;
}
