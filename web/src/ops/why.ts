// The explanation of one notification, channel by channel, with every attempt.

import { el } from './dom.js';
import { clock, clockSeconds, named } from './format.js';
import { get } from './api.js';
import type { Why } from './types.js';

export async function why(id: number): Promise<HTMLElement> {
  const found = await get<Why>(`notifications/${id}/why/`);
  const whom = found.recipient_id ?? found.email ?? 'somebody';
  return el(
    'article',
    { class: 'why-box', 'aria-label': `Notification ${id}` },
    el('h3', {}, found.title || found.event_type),
    el(
      'p',
      { class: 'aside' },
      `Notification ${found.id} of event ${found.event_id} (${found.event_type}) to ${whom}, ${clock(found.created_at)} UTC`,
    ),
    el('p', { class: 'aside' }, 'As the person is informed:'),
    ...found.channels.map(channel),
  );
}

function channel(each: Why['channels'][number]): HTMLElement {
  return el(
    'section',
    { class: 'decision' },
    el('h4', {}, named(each.channel), el('span', { class: `chip ${each.decision}` }, each.decision), el('code', {}, each.reason)),
    el('p', {}, each.sentence),
    ...each.deliveries.map((delivery) =>
      el(
        'div',
        { class: 'delivery' },
        el(
          'p',
          {},
          el('span', { class: `chip ${delivery.state}` }, delivery.state),
          delivery.reason ? el('code', {}, delivery.reason) : null,
          delivery.address ? ` to ${delivery.address}` : null,
        ),
        delivery.attempts.length
          ? el(
              'ol',
              { class: 'attempts' },
              ...delivery.attempts.map((attempt) =>
                el(
                  'li',
                  {},
                  el('time', { datetime: attempt.at }, `${clock(attempt.at)}:${clockSeconds(attempt.at).slice(-2)}`),
                  ` ${attempt.outcome}`,
                  attempt.provider ? ` by ${attempt.provider}` : null,
                  attempt.reason ? el('code', {}, attempt.reason) : null,
                ),
              ),
            )
          : null,
      ),
    ),
  );
}
