// The problems, with their cures; changes are announced to screen readers.

import { byId, el, keyed, say, sayWithCode, set } from './dom.js';
import { clock, count, since } from './format.js';
import type { Overview, Problem } from './types.js';

const WORDS = { critical: 'Critical', warning: 'Warning' };
const MARKS = { critical: '✕', warning: '!' };

export function showProblems(overview: Overview, now: Date): void {
  const { problems } = overview;
  keyed(byId('problem-list'), problems, (each) => `${each.code} ${each.channel} ${each.severity}`, make, (element, each) =>
    update(element, each, now),
  );
  const fine = byId('healthy');
  fine.hidden = problems.length > 0;
  say(fine, healthy(overview));
  announce(problems);
  document.title = problems.length ? `(${problems.length}) ${problems[0]?.what} · Tocsin` : 'Healthy · Tocsin';
}

function make(problem: Problem): HTMLElement {
  return el(
    'li',
    { class: `problem ${problem.severity}` },
    el(
      'h3',
      {},
      el('span', { class: 'mark', 'aria-hidden': 'true' }, MARKS[problem.severity]),
      el('span', { class: 'unseen' }, `${WORDS[problem.severity]}: `),
      el('span', { class: 'what' }),
    ),
    el('p', { class: 'since' }),
    el('p', { class: 'detail' }),
    el('p', { class: 'cure' }, el('strong', {}, 'Do: '), el('span')),
  );
}

function update(element: HTMLElement, problem: Problem, now: Date): void {
  const part = (name: string) => element.querySelector(name) as HTMLElement;
  say(part('.what'), problem.what);
  const start = problem.since;
  say(part('.since'), start ? `Since ${clock(start, now)} UTC, for ${since(start, now)}` : '');
  set(part('.since'), { title: start });
  say(part('.detail'), problem.detail);
  sayWithCode(part('.cure span'), problem.cure);
}

function healthy(overview: Overview): string {
  const sent = overview.channels.reduce((sum, each) => sum + each.total.sent, 0);
  const workers = overview.processes.filter((each) => each.kind === 'worker' && !each.silent).length;
  const within = overview.window === 'hour' ? 'hour' : 'day';
  return `Healthy: ${count(sent, 'delivery', 'deliveries')} sent in the last ${within}, ${count(workers, 'worker')}, nothing is late.`;
}

let announced = '';

/** Announces a change once. */
function announce(problems: readonly Problem[]): void {
  const words = problems.length
    ? `${count(problems.length, 'problem')}: ${problems.map((each) => each.what).join('; ')}`
    : 'No problems';
  if (words !== announced) say(byId('status'), words);
  announced = words;
}
