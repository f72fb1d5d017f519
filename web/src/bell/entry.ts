// One row of the list: a notification, or a group of several that opens in place.

import type { Notification } from '../public/tocsin-bell.js';

/** What the bell uses of an item of `GET /api/notifications/?grouped=true`. */
export interface Group {
  group_key: string;
  count: number;
  unread: number;
  /** Whether there are more than the numbers state. */
  capped?: boolean;
  title: string;
  latest: Notification;
}

/** Why a button can't be pressed any more, if it is not that another one was. */
export type Over = 'cancelled' | 'replaced' | 'expired';

export interface Entry extends Group {
  /** The group that it is shown in; null in the list itself. */
  parent: Entry | null;
  open?: boolean;
  /** The notifications of an open group, the newest first; none: not loaded. */
  members?: Entry[];
  /** The cursor of older members. */
  older?: string | null;
  /** The key of the button that is being pressed. */
  pressing?: string | null;
  over?: Over;
  /** The last change that was sent. */
  sent?: Promise<Response>;
}

export function entryOf(found: Group | Notification, parent: Entry | null = null): Entry {
  return { ...('latest' in found ? found : groupOfOne(found)), parent };
}

/** Whether a new notification belongs to this group. */
export function joins(entry: Entry, { subject, event_type }: Notification): boolean {
  const { latest, unread } = entry;
  return unread > 0 && subject !== null && latest.subject === subject && latest.event_type === event_type;
}

/** The row for `found` with what the person did in the known one: opened, loaded, pressed. */
export function merged(known: Entry, found: Entry): Entry {
  return Object.assign(known, found, { latest: known.latest.id === found.latest.id ? Object.assign(known.latest, found.latest) : found.latest });
}

export function isSame(known: Entry, found: Entry): boolean {
  return known.latest.id === found.latest.id || (!!found.group_key && known.group_key === found.group_key);
}

function groupOfOne(latest: Notification): Group {
  const { title, read } = latest;
  return {
    group_key: '',
    count: 1,
    unread: read ? 0 : 1,
    title,
    latest,
  };
}
