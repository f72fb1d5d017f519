// Each channel: its current numbers, and their charts.

import { Chart } from './chart.js';
import { byId, el, keyed, say, set } from './dom.js';
import { clock, count, named, since, span, whole } from './format.js';
import type { Channel, Overview } from './types.js';

interface Card {
  ended: Chart;
  waiting: Chart;
  latency: Chart;
}

const cards = new WeakMap<HTMLElement, Card>();
const TILES = ['sent', 'failed', 'waiting', 'latency', 'late'] as const;
const LABELS = {
  sent: 'Sent, last minute',
  failed: 'Failed, last minute',
  waiting: 'Waiting',
  latency: 'Created to sent: p50, p99',
  late: 'Oldest due delivery',
};

export function showChannels(overview: Overview, now: Date): void {
  keyed(byId('channel-list'), overview.channels, (each) => each.channel, make, (element, each) =>
    update(element, each, overview, now),
  );
  say(byId('streams'), `${count(overview.streams, 'open stream')}`);
}

function make(channel: Channel): HTMLElement {
  const name = named(channel.channel);
  const card: Card = {
    ended: new Chart('Ended', name),
    waiting: new Chart('Waiting', name),
    latency: new Chart('From created to sent', name),
  };
  const tiles = TILES.map((key) => el('div', { class: `tile ${key}` }, el('dt', {}, LABELS[key]), el('dd')));
  const element = el(
    'article',
    { class: 'card', 'aria-label': name },
    el('h3', {}, name, el('span', { class: 'state' })),
    el('p', { class: 'idle none', hidden: '' }, 'No worker has a provider for this channel, and nothing was sent or is waiting.'),
    el(
      'div',
      { class: 'body' },
      el('dl', { class: 'tiles' }, ...tiles),
      el('div', { class: 'charts' }, card.ended.element, card.waiting.element, card.latency.element),
    ),
  );
  cards.set(element, card);
  return element;
}

function update(element: HTMLElement, channel: Channel, overview: Overview, now: Date): void {
  const part = (name: string) => element.querySelector(name) as HTMLElement;
  const waiting = Object.values(channel.waiting).reduce((sum, n) => sum + n, 0);
  const idle = !channel.available && !waiting && !Object.values(channel.total).some(Boolean);
  part('.idle').hidden = !idle;
  part('.body').hidden = idle;
  // a problem of this channel, or one of all channels
  const wrong =
    overview.problems.find((each) => each.channel === channel.channel) ??
    overview.problems.find((each) => each.code === 'no_worker' || each.code === 'no_leader');
  set(part('.state'), { 'data-state': idle ? 'idle' : (wrong?.severity ?? 'healthy') });
  const name = named(channel.channel);
  say(part('.state'), idle ? 'not set up' : (wrong?.what.replace(`${name}: `, '').replace(`${name} `, '') ?? 'healthy'));
  if (!idle) fill(element, channel, overview, waiting, now);
}

function fill(element: HTMLElement, channel: Channel, overview: Overview, waiting: number, now: Date): void {
  const tile = (name: (typeof TILES)[number], value: string, note = '', state = '') => {
    const box = element.querySelector(`.tile.${name}`) as HTMLElement;
    const dd = box.querySelector('dd') as HTMLElement;
    if (dd.dataset['shown'] === value + note) return;
    dd.dataset['shown'] = value + note;
    dd.replaceChildren(el('span', { class: 'value' }, value), el('span', { class: 'note' }, note));
    set(box, { 'data-state': state || null });
  };
  const failed = channel.last_minute.failed ?? 0;
  tile('sent', whole(channel.last_minute.sent ?? 0), `${whole(channel.total.sent)} in the ${overview.window}`);
  tile('failed', whole(failed), `${whole(channel.total.failed)} in the ${overview.window}`, failed ? 'critical' : '');
  const old = channel.oldest_at && waiting ? `oldest ${since(channel.oldest_at, now)}` : 'not due yet';
  tile('waiting', whole(waiting) + (channel.waiting_more ? '+' : ''), waiting ? old : '');
  const { latency, window_latency: wide } = channel;
  const shown = latency ?? wide;
  tile(
    'latency',
    shown ? `${span(shown.p50)} · ${span(shown.p99)}` : '–',
    latency ? 'in the last minute' : wide ? `in the last ${overview.window}` : `none in the ${overview.window}`,
  );
  const late = channel.late >= 1;
  const worry = channel.late >= 600 ? 'critical' : channel.late >= 60 ? 'warning' : '';
  tile('late', late ? span(channel.late) : '0 s', late ? 'late' : 'nothing is late', worry);
  draw(element, channel, overview, waiting);
}

function draw(element: HTMLElement, channel: Channel, overview: Overview, waiting: number): void {
  const card = cards.get(element);
  if (!card) return;
  const { times, window } = overview;
  const { ended, p50, p99 } = channel.series;
  const other = ended.sent.map((_, i) => (ended.skipped[i] ?? 0) + (ended.cancelled[i] ?? 0) + (ended.expired[i] ?? 0));
  const { sent, failed } = channel.total;
  const peak = Math.max(...ended.sent);
  const at = clock(times[ended.sent.indexOf(peak)] ?? overview.at);
  card.ended.draw({
    times,
    bars: true,
    say: whole,
    lines: [
      { name: 'sent', kind: 'sent', values: ended.sent },
      { name: 'failed', kind: 'failed', values: ended.failed },
      { name: 'skipped, cancelled or expired', kind: 'other', values: other },
    ],
    summary: `${named(channel.channel)}, last ${window}: ${whole(sent)} sent, ${whole(failed)} failed; at most ${whole(peak)} sent in a step, at ${at}.`,
  });
  const queue = [...channel.series.waiting.slice(0, -1), waiting];
  card.waiting.draw({
    times,
    say: whole,
    lines: [{ name: 'waiting', kind: 'waiting', values: queue }],
    summary: `${named(channel.channel)}, last ${window}: ${whole(waiting)} wait now, at most ${whole(Math.max(...queue.map((n) => n ?? 0)))} did.`,
  });
  const wide = channel.window_latency;
  card.latency.draw({
    times,
    logarithmic: true,
    say: span,
    lines: [
      { name: 'p50', kind: 'p50', values: p50 },
      { name: 'p99', kind: 'p99', values: p99 },
    ],
    summary: wide
      ? `${named(channel.channel)}, last ${window}: half were sent within ${span(wide.p50)}, 99 of 100 within ${span(wide.p99)}.`
      : `${named(channel.channel)}, last ${window}: nothing was sent.`,
  });
}
