// The service worker of Web Push: shows a push, and opens its page by a click. It is built as a classic script without imports,
// so that a host can load it into a worker of its own origin by `importScripts()`.

import { withNotifications } from '../shared/notification_lock.js';

interface Waiting extends Event {
  waitUntil(work: Promise<unknown>): void;
}

interface PushReceived extends Waiting {
  readonly data: { json(): unknown } | null;
}

interface NotificationClicked extends Waiting {
  readonly notification: Notification;
  readonly action: string; // of the button, else empty
}

interface Button {
  action: string;
  title: string;
  navigate: string;
}

interface Worker extends EventTarget {
  readonly registration: ServiceWorkerRegistration;
  readonly clients: { openWindow(url: string): Promise<unknown> };
  readonly navigator: { setAppBadge?(count: number): Promise<void> };
}

/** A declarative push message (https://w3c.github.io/push-api/), which Safari shows without this worker. */
interface PushMessage {
  web_push: number;
  notification: NotificationOptions & {
    title: string;
    navigate: string;
    data?: Record<string, string>;
    actions?: Button[];
  };
  app_badge?: number;
}

const worker = self as unknown as Worker;

worker.addEventListener('push', (event) => {
  const push = event as PushReceived;
  const message = read(push.data);
  if (message) push.waitUntil(withNotifications(() => show(message)));
});

worker.addEventListener('notificationclick', (event) => {
  const click = event as NotificationClicked;
  click.notification.close();
  const { navigate, buttons } = click.notification.data ?? {};
  const url: unknown = buttons?.[click.action] ?? navigate; // the latter marks it read, and leads to its page
  if (typeof url === 'string' && /^https?:/.test(url)) click.waitUntil(worker.clients.openWindow(url));
});

/** Null: it is not a message of Tocsin. */
function read(data: PushReceived['data']): PushMessage | null {
  try {
    const message = data?.json() as PushMessage;
    return message.web_push === 8030 ? message : null;
  } catch {
    return null;
  }
}

async function show({ notification, app_badge: unread }: PushMessage): Promise<void> {
  const { title, navigate, data, ...options } = notification;
  const { registration, navigator } = worker;
  // where this is the only unread one, those that are still shown were read elsewhere
  if (unread === 1) for (const earlier of await registration.getNotifications()) earlier.close();
  const buttons = Object.fromEntries((options.actions ?? []).map((each) => [each.action, each.navigate]));
  await registration.showNotification(title, { ...options, data: { ...data, navigate, buttons } });
  if (unread !== undefined) await navigator.setAppBadge?.(unread);
}
