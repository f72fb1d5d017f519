// Defines <tocsin-bell> when the module is loaded.

import { TocsinBell } from '../bell/element.js';

if (!customElements.get('tocsin-bell')) customElements.define('tocsin-bell', TocsinBell);

export { TocsinBell };
