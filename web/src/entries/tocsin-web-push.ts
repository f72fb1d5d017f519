// Offers Web Push in each <tocsin-bell web-push> of the page; the bell loads this module.

import type { TocsinBell } from '../public/tocsin-bell.js';
import { PushOffer } from '../web-push/offer.js';

const offers = new WeakMap<TocsinBell, PushOffer>();

function offerOf(bell: TocsinBell): PushOffer {
  const offer = offers.get(bell) ?? new PushOffer(bell);
  offers.set(bell, offer);
  return offer;
}

for (const bell of document.querySelectorAll<TocsinBell>('tocsin-bell[web-push]')) {
  const offer = offerOf(bell);
  if (bell.count !== null) void offer.counted();
}

addEventListener('tocsin:count', (event) => {
  const bell = event.target as TocsinBell;
  if (bell.hasAttribute('web-push')) void offerOf(bell).counted();
});
