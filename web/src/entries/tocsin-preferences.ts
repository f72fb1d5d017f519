// Defines <tocsin-preferences> when the module is loaded.

import { TocsinPreferences } from '../preferences/element.js';

if (!customElements.get('tocsin-preferences')) customElements.define('tocsin-preferences', TocsinPreferences);

export { TocsinPreferences };
