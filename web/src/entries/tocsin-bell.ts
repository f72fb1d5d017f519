// Defines <tocsin-bell> when the module is loaded in a browser.

import { TocsinBell } from '../bell/element.js';
import { define } from '../shared/element.js';

define('tocsin-bell', TocsinBell);

export { TocsinBell };
