'use client';
// React 18 and 19: hooks over the client, and <tocsin-bell> as a component.

import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from 'react';
import type { Notification, TocsinBell as Bell, TocsinBellEventMap, TocsinBellProps } from '../public/tocsin-bell.js';
import type { Client, Inbox, InboxFilter, InboxState, Store } from '../public/tocsin-client.js';

export type * from './tocsin-jsx.js';

const Context = createContext<Client | null>(null);

/** Gives a client (`createClient` of `tocsin/client`) to the hooks below it. */
export function TocsinProvider({ client, children }: { client: Client; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest `TocsinProvider`. */
export function useTocsin(): Client {
  const client = useContext(Context);
  if (client === null) throw new Error('The hooks of tocsin/react need a <TocsinProvider client={…}> around the component.');
  return client;
}

/** The number of unread notifications; null while it is not known. */
export function useUnreadCount(): number | null {
  const { badge } = useTocsin();
  return useSyncExternalStore(badge.subscribe, badge.get, () => null)?.count ?? null;
}

/** How many of them came after the list that the person saw last; null while it is not known. */
export function useUnseenCount(): number | null {
  const { badge } = useTocsin();
  return useSyncExternalStore(badge.subscribe, badge.get, () => null)?.unseen ?? null;
}

/** The list and its actions, kept up to date. */
export function useNotifications(filter: InboxFilter = {}): InboxState & Omit<Inbox, keyof Store<unknown>> {
  const client = useTocsin();
  const { category = '', unreadOnly = false, archived = false } = filter;
  const inbox = useMemo(() => client.inbox({ category, unreadOnly, archived }), [client, category, unreadOnly, archived]);
  const state = useSyncExternalStore(inbox.subscribe, inbox.get, inbox.get);
  return useMemo(() => {
    const { reload, loadMore, markRead, markUnread, archive, unarchive, seen, markAllRead, archiveAll, undo } = inbox;
    return { ...state, reload, loadMore, markRead, markUnread, archive, unarchive, seen, markAllRead, archiveAll, undo };
  }, [inbox, state]);
}

export interface TocsinBellComponentProps extends TocsinBellProps {
  className?: string;
  /** The person opens a notification; after `event.preventDefault()` the browser does not navigate. */
  onOpen?: (event: CustomEvent<Notification>) => void;
  onCount?: (event: CustomEvent<{ count: number; unseen: number }>) => void;
  /** The person pressed a button of a notification; after `event.preventDefault()` the browser does not follow its URL. */
  onAction?: (event: CustomEvent<{ notification: Notification; key: string }>) => void;
  onSignedOut?: (event: CustomEvent<null>) => void;
  onSignIn?: (event: CustomEvent<null>) => void;
}

/** Loads the bell when it is first shown. Give it the person's id as `key`, so that another person gets another bell. */
export function TocsinBell(props: TocsinBellComponentProps): ReactElement {
  const { getToken, words, onOpen, onCount, onAction, onSignedOut, onSignIn, className, 'title-count': titleCount, ...attributes } = props;
  const element = useRef<Bell>(null);
  const latest = useRef(props);
  const byFunction = getToken != null;
  useEffect(() => void (latest.current = props));
  useEffect(() => {
    void import('../entries/tocsin-bell.js');
    const bell = element.current!;
    const listeners: { [Name in keyof TocsinBellEventMap]: (event: TocsinBellEventMap[Name]) => void } = {
      'tocsin:open': (event) => latest.current.onOpen?.(event),
      'tocsin:count': (event) => latest.current.onCount?.(event),
      'tocsin:action': (event) => latest.current.onAction?.(event),
      'tocsin:signed-out': (event) => latest.current.onSignedOut?.(event),
      'tocsin:sign-in': (event) => latest.current.onSignIn?.(event),
    };
    const each = Object.entries(listeners) as [string, EventListener][];
    for (const [name, listener] of each) bell.addEventListener(name, listener);
    return () => each.forEach(([name, listener]) => bell.removeEventListener(name, listener));
  }, []);
  useEffect(() => {
    // one function for all renderings: another one would mean that somebody else may be signed in
    if (byFunction) element.current!.getToken = () => latest.current.getToken?.() ?? null;
  }, [byFunction]);
  useEffect(() => {
    if (words) element.current!.words = words;
  }, [words]);
  return createElement('tocsin-bell', { ...attributes, ref: element, class: className, 'title-count': titleCount ? '' : undefined });
}
