// Events with very many followers that are being fanned out, with their progress.

import { byId, el, keyed, say } from './dom.js';
import { ago, whole } from './format.js';
import type { FanOut, Overview } from './types.js';

export function showFanOuts(overview: Overview, now: Date): void {
  byId('fan-outs').hidden = overview.fan_outs.length === 0;
  const rows = byId<HTMLTableElement>('fan-outs-table').tBodies[0] as Element;
  keyed(rows, overview.fan_outs, (each) => String(each.event_id), make, (row, each) => {
    say(row.cells[1] as Element, whole(each.fanned_out));
    say(row.cells[2] as Element, whole(each.total));
    say(row.cells[3] as Element, ago(each.since, now));
  });
}

function make(each: FanOut): HTMLTableRowElement {
  const title = el('td', {}, `${each.event_id}: ${each.title} `, el('code', {}, each.event_type));
  return el('tr', {}, title, el('td', { class: 'n' }), el('td', { class: 'n' }), el('td'));
}
