// The reasons why deliveries wait or ended without being sent, each with its meaning and what to do.

import { byId, el, keyed, say } from './dom.js';
import { named, whole } from './format.js';
import type { Overview, Reason } from './types.js';

const STATES: Record<string, string> = {
  queued: 'It waits for its turn.',
  sending: 'A worker is sending it.',
  deferred: 'It is due again later.',
};

export function showReasons(overview: Overview): void {
  table('waiting', overview.waiting);
  table('ended', overview.ended);
  for (const each of document.querySelectorAll('.window-name')) say(each, `last ${overview.window}`);
}

function table(name: string, reasons: readonly Reason[]): void {
  byId(`${name}-none`).hidden = reasons.length > 0;
  const box = byId<HTMLTableElement>(`${name}-table`);
  (box.parentElement as HTMLElement).hidden = reasons.length === 0;
  keyed(box.tBodies[0] as Element, reasons, (each) => `${each.channel} ${each.state} ${each.reason}`, make, (row, each) =>
    say(row.cells[1] as Element, whole(each.n)),
  );
}

function make(reason: Reason): HTMLTableRowElement {
  const meaning = reason.meaning || STATES[reason.state] || '';
  return el(
    'tr',
    {},
    el('td', {}, named(reason.channel)),
    el('td', { class: 'n' }),
    el(
      'td',
      {},
      el('span', { class: `chip ${reason.state}` }, reason.state),
      reason.reason ? el('code', {}, reason.reason) : null,
      meaning ? el('span', { class: 'meaning' }, meaning) : null,
      reason.cure && reason.cure !== 'Nothing.' ? el('span', { class: 'cure' }, `Do: ${reason.cure}`) : null,
    ),
  );
}
