// The processes, and the actors of workers: mailbox, circuit breaker, rate limit.

import { byId, el, keyed, say, set, svg } from './dom.js';
import { ago, clock, count, named, span } from './format.js';
import type { Actor, Overview, Process } from './types.js';

const KINDS: Record<string, string> = { worker: 'Worker', serve: 'HTTP' };
const BREAKERS = { closed: 'healthy', open: 'paused', half_open: 'probing' };

export function showProcesses(overview: Overview, now: Date): void {
  const { processes } = overview;
  byId('processes-none').hidden = processes.length > 0;
  keyed(byId('process-list'), processes, (each) => `${each.host} ${each.pid} ${each.started_at}`, make, (element, each) =>
    update(element, each, now),
  );
}

function make(process: Process): HTMLElement {
  const actors = el('ul', { class: 'actors' });
  return el(
    'li',
    { class: 'process' },
    el(
      'h3',
      {},
      KINDS[process.kind] ?? process.kind,
      el('span', { class: 'aside' }, ` ${process.pid} on ${process.host}`),
      el('span', { class: 'state' }),
    ),
    el('p', { class: 'aside facts' }),
    actors,
  );
}

function update(element: HTMLElement, process: Process, now: Date): void {
  const part = (name: string) => element.querySelector(name) as HTMLElement;
  set(part('.state'), { 'data-state': process.silent ? 'critical' : 'healthy' });
  say(part('.state'), process.silent ? `silent, last report ${ago(process.reported_at, now)}` : 'running');
  const up = span((now.getTime() - new Date(process.started_at).getTime()) / 1000);
  const facts = [`version ${process.version}`, `up ${up}`];
  if (process.leading) facts.push('leader');
  if (process.kind === 'serve') facts.push(count(process.streams, 'open stream'));
  if (process.kind === 'worker' && !process.actors.length) facts.push('no provider configured: sends nothing');
  say(part('.facts'), facts.join(' · '));
  keyed(part('.actors'), process.silent ? [] : process.actors, (each) => each.name, makeActor, (actor, each) =>
    updateActor(actor, each, now),
  );
}

function makeActor(actor: Actor): HTMLElement {
  const meter = svg('svg', { class: 'meter', viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  meter.append(svg('rect', { class: 'all', width: 100, height: 6 }), svg('rect', { class: 'full', width: 0, height: 6 }));
  return el(
    'li',
    {},
    el('p', { class: 'name' }, el('strong', {}, named(actor.name)), el('span', { class: 'state' })),
    el('p', { class: 'why' }),
    el('p', { class: 'mailbox' }),
    meter as unknown as Node,
    el('p', { class: 'aside pace' }),
  );
}

function updateActor(element: HTMLElement, actor: Actor, now: Date): void {
  const part = (name: string) => element.querySelector(name) as HTMLElement;
  const broken = actor.breaker !== 'closed';
  set(part('.state'), { 'data-state': broken ? 'critical' : 'healthy' });
  say(part('.state'), BREAKERS[actor.breaker]);
  part('.why').hidden = !broken && !actor.advice;
  say(part('.why'), broken ? resting(actor, now) : '');
  say(part('.mailbox'), `Mailbox ${actor.waiting} of ${actor.size} · ${actor.in_flight} of ${actor.senders} senders busy`);
  const share = actor.size ? (100 * Math.min(actor.waiting, actor.size)) / actor.size : 0;
  part('.full').setAttribute('width', String(share));
  const pace = actor.rate === null ? 'unlimited' : `at most ${actor.rate} a second`;
  say(part('.pace'), [pace, actor.crashes ? `crashed ${count(actor.crashes, 'time')}` : ''].filter(Boolean).join(' · '));
}

function resting(actor: Actor, now: Date): string {
  const left = actor.retry_at ? (new Date(actor.retry_at).getTime() - now.getTime()) / 1000 : 0;
  const next = left > 0 ? `next probe in ${span(Math.max(1, left))}` : 'probing now';
  return `${actor.reason ?? 'unknown'}, since ${clock(actor.since ?? now, now)} UTC; ${next}`;
}
