// Search: a person, an event or a notification, each with its explanation. The URL contains the query, to be shared.

import { get, SignedOut } from './api.js';
import { byId, el } from './dom.js';
import { clock, count, named, whole } from './format.js';
import { why } from './why.js';
import type { Found, EventView, NotificationLine, Person } from './types.js';

export function startSearch(): void {
  const input = byId<HTMLInputElement>('q');
  byId('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    void search(input.value);
  });
  const query = new URLSearchParams(location.search).get('q');
  if (query) {
    input.value = query;
    void search(query);
  }
}

/** Searches, and shows the result. */
export async function search(text: string): Promise<void> {
  const query = text.trim();
  if (!query) return;
  history.replaceState(null, '', `?q=${encodeURIComponent(query)}#search`);
  byId<HTMLInputElement>('q').value = query;
  await shown(async () => {
    const found = await get<Found>('search/', { q: query });
    const explanation = found.notification_id === null ? null : await why(found.notification_id);
    const parts = [...found.people.map(person), found.event && eventBox(found.event), explanation].filter((each) => !!each);
    return parts.length ? parts : [el('p', { class: 'none' }, `Nothing was found for “${query}”.`)];
  });
}

export async function showWhy(id: number): Promise<void> {
  history.replaceState(null, '', `?q=${id}#search`);
  byId<HTMLInputElement>('q').value = String(id);
  await shown(async () => [await why(id)]);
  byId('search').scrollIntoView({ block: 'start' });
}

let searches = 0;

/** Shows what a search finds, unless a later one has begun. */
async function shown(make: () => Promise<Node[]>): Promise<void> {
  const box = byId('found');
  const search = ++searches;
  box.setAttribute('aria-busy', 'true');
  const found = await make().catch((error: Error) => {
    if (error instanceof SignedOut) location.reload();
    return [el('p', { class: 'wrong' }, `The search failed: ${error.message}`)];
  });
  if (search !== searches) return;
  box.replaceChildren(...found);
  box.removeAttribute('aria-busy');
}

function person(each: Person): HTMLElement {
  const facts = [
    each.email ?? 'no email address',
    each.suppressed ? `suppressed: ${each.suppressed}` : '',
    `${each.unread} unread`,
    each.digest ? `${each.digest} digest` : '',
    each.quiet_hours ? 'has quiet hours' : '',
    each.locale ?? '',
    each.timezone ?? '',
    `since ${clock(each.created_at)}`,
  ].filter(Boolean);
  const devices = each.devices.map((device) =>
    el(
      'li',
      {},
      `${device.platform}, ${named(device.provider)} ${device.token} `,
      device.disabled_at
        ? el('span', { class: 'chip failed' }, `disabled ${clock(device.disabled_at)}: ${device.disabled_reason}`)
        : el('span', { class: 'chip sent' }, 'live'),
    ),
  );
  return el(
    'article',
    { class: 'why-box', 'aria-label': `Person ${each.id}` },
    el('h3', {}, 'Person ', el('code', {}, each.id)),
    el('p', { class: 'aside' }, facts.join(' · ')),
    devices.length ? el('ul', { class: 'devices' }, ...devices) : el('p', { class: 'aside' }, 'No device.'),
    list(each.notifications, 'Last notifications', false),
  );
}

function eventBox({ event, notifications }: EventView): HTMLElement {
  const states = Object.entries(event.deliveries).flatMap(([channel, counts]) =>
    Object.entries(counts).map(([state, n]) => el('span', { class: `chip ${state}` }, `${named(channel)}: ${n} ${state}`)),
  );
  const facts = [
    event.event_type,
    event.topic ? `topic ${event.topic}` : '',
    `by ${event.caller}`,
    event.fanned_out_at ? `${count(event.notifications, 'person', 'people')} notified ${clock(event.fanned_out_at)} UTC` : '',
    !event.fanned_out_at && event.fanned_out ? `${count(event.fanned_out, 'person', 'people')} of ${whole(event.total ?? 0)} notified` : '',
    event.send_at && !event.fanned_out_at && !event.fanned_out ? `scheduled for ${clock(event.send_at)} UTC` : '',
    event.cancelled_at ? `cancelled ${clock(event.cancelled_at)} UTC` : '',
  ].filter(Boolean);
  return el(
    'article',
    { class: 'why-box', 'aria-label': `Event ${event.id}` },
    el('h3', {}, `Event ${event.id}: ${event.title}`),
    el('p', { class: 'aside' }, facts.join(' · ')),
    el('p', {}, ...states),
    list(notifications, event.notifications > notifications.length ? `The first ${notifications.length}` : 'Notified', true),
  );
}

function list(lines: readonly NotificationLine[], title: string, people: boolean): HTMLElement | null {
  if (!lines.length) return el('p', { class: 'none' }, 'No notification.');
  const items = lines.map((each) => {
    const button = el('button', { type: 'button', class: 'link' }, people ? (each.recipient_id ?? 'an address') : each.title || each.event_type);
    button.addEventListener('click', () => void showWhy(each.id));
    return el('li', {}, button, el('span', { class: 'aside' }, ` ${each.event_type}, ${clock(each.created_at)} UTC`));
  });
  return el('section', {}, el('h4', {}, `${title}: choose one to see why`), el('ul', { class: 'notifications' }, ...items));
}
