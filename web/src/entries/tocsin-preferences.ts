// Defines <tocsin-preferences> when the module is loaded in a browser.

import { TocsinPreferences } from '../preferences/element.js';
import { define } from '../shared/element.js';

define('tocsin-preferences', TocsinPreferences);

export { TocsinPreferences };
