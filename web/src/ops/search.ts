// Search: a person, an event or a notification, each with its explanation. The URL contains the query, to be shared.

import { get, SignedOut } from './api.js';
import { byId, el } from './dom.js';
import { clock, count, named } from './format.js';
import { why } from './why.js';
import type { Found, Happening, Person, Told } from './types.js';

export function startSearch(): void {
  const input = byId<HTMLInputElement>('q');
  byId('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    void search(input.value);
  });
  const asked = new URLSearchParams(location.search).get('q');
  if (asked) {
    input.value = asked;
    void search(asked);
  }
}

/** Searches, and shows the result. */
export async function search(text: string): Promise<void> {
  const asked = text.trim();
  if (!asked) return;
  history.replaceState(null, '', `?q=${encodeURIComponent(asked)}#search`);
  byId<HTMLInputElement>('q').value = asked;
  await shown(async () => {
    const found = await get<Found>('search/', { q: asked });
    const noted = found.notification_id === null ? null : await why(found.notification_id);
    const parts = [...found.people.map(person), found.event && happening(found.event), noted].filter((each) => !!each);
    return parts.length ? parts : [el('p', { class: 'none' }, `Nothing and nobody is known by “${asked}”.`)];
  });
}

export async function showWhy(id: number): Promise<void> {
  history.replaceState(null, '', `?q=${id}#search`);
  byId<HTMLInputElement>('q').value = String(id);
  await shown(async () => [await why(id)]);
  byId('search').scrollIntoView({ block: 'start' });
}

async function shown(make: () => Promise<Node[]>): Promise<void> {
  const box = byId('found');
  box.setAttribute('aria-busy', 'true');
  try {
    box.replaceChildren(...(await make()));
  } catch (error) {
    if (error instanceof SignedOut) location.reload();
    box.replaceChildren(el('p', { class: 'wrong' }, `Not found out: ${(error as Error).message}`));
  } finally {
    box.removeAttribute('aria-busy');
  }
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
    list(each.told, 'Told last', false),
  );
}

function happening({ event, told }: Happening): HTMLElement {
  const states = Object.entries(event.deliveries).flatMap(([channel, counts]) =>
    Object.entries(counts).map(([state, n]) => el('span', { class: `chip ${state}` }, `${named(channel)}: ${n} ${state}`)),
  );
  const facts = [
    event.event_type,
    event.topic ? `topic ${event.topic}` : '',
    `by ${event.caller}`,
    event.told_at ? `told ${clock(event.told_at)} UTC to ${count(event.notifications, 'person', 'people')}` : '',
    event.send_at && !event.told_at ? `to be told ${clock(event.send_at)} UTC` : '',
    event.cancelled_at ? `cancelled ${clock(event.cancelled_at)} UTC` : '',
  ].filter(Boolean);
  return el(
    'article',
    { class: 'why-box', 'aria-label': `Event ${event.id}` },
    el('h3', {}, `Event ${event.id}: ${event.title}`),
    el('p', { class: 'aside' }, facts.join(' · ')),
    el('p', {}, ...states),
    list(told, event.notifications > told.length ? `The first ${told.length}` : 'Told to', true),
  );
}

function list(told: readonly Told[], title: string, people: boolean): HTMLElement | null {
  if (!told.length) return el('p', { class: 'none' }, 'Nothing was told.');
  const lines = told.map((each) => {
    const button = el('button', { type: 'button', class: 'link' }, people ? (each.recipient_id ?? 'an address') : each.title || each.event_type);
    button.addEventListener('click', () => void showWhy(each.id));
    return el('li', {}, button, el('span', { class: 'aside' }, ` ${each.event_type}, ${clock(each.created_at)} UTC`));
  });
  return el('section', {}, el('h4', {}, `${title}: choose one to see why`), el('ul', { class: 'told' }, ...lines));
}
