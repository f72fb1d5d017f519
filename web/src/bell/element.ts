// The element: attributes in, events out.

import type { TocsinBellElement } from '../public/tocsin-bell.js';
import { baseOf } from '../shared/api.js';

export class TocsinBell extends HTMLElement implements TocsinBellElement {
  get api(): string {
    return this.getAttribute('api') ?? baseOf(import.meta.url);
  }

  set api(value: string) {
    this.setAttribute('api', value);
  }
}
