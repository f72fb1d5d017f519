// Numbers and times for operators, in UTC like the logs.

const WHOLE = new Intl.NumberFormat('en');
const CLOCK = new Intl.DateTimeFormat('en-GB', { timeZone: 'UTC', hour: '2-digit', minute: '2-digit' });
const CLOCK_SECONDS = new Intl.DateTimeFormat('en-GB', { timeZone: 'UTC', timeStyle: 'medium' });
const DAY = new Intl.DateTimeFormat('en-GB', { timeZone: 'UTC', day: 'numeric', month: 'short' });

const NAMES: Record<string, string> = {
  email: 'Email',
  push: 'Push',
  apns: 'APNs',
  apns_sandbox: 'APNs (sandbox)',
  fcm: 'FCM',
  web_push: 'Web Push',
  webhook: 'Webhook',
  chat: 'Chat',
  in_app: 'Inbox',
};

export function whole(n: number): string {
  return WHOLE.format(n);
}

export function named(name: string): string {
  const [kind = '', address] = name.split('/');
  const label = NAMES[kind] ?? (kind.charAt(0).toUpperCase() + kind.slice(1)).replaceAll('_', ' ');
  return address ? `${label} (${address})` : label;
}

/** The time since a moment, in whole seconds. */
export function since(at: string | Date, now: Date): string {
  const seconds = Math.max(1, Math.round((now.getTime() - new Date(at).getTime()) / 1000));
  return seconds < 10 ? `${seconds} s` : span(seconds);
}

/** A length of time in its two largest units: `340 ms`, `4.2 s`, `3 min`, `2 h 5 min`, `3 d 4 h`. */
export function span(seconds: number): string {
  if (seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return two(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
  return two(Math.floor(minutes / 1440), 'd', Math.floor((minutes % 1440) / 60), 'h');
}

function two(large: number, unit: string, small: number, under: string): string {
  return small ? `${large} ${unit} ${small} ${under}` : `${large} ${unit}`;
}

/** `03:07`, with the day if it is not today. */
export function clock(at: string | Date, now = new Date()): string {
  const time = new Date(at);
  const today = DAY.format(time) === DAY.format(now);
  return today ? CLOCK.format(time) : `${DAY.format(time)}, ${CLOCK.format(time)}`;
}

export function clockSeconds(at: string | Date): string {
  return CLOCK_SECONDS.format(new Date(at));
}

export function ago(at: string, now: Date): string {
  return `${since(at, now)} ago`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${whole(n)} ${n === 1 ? one : many}`;
}
