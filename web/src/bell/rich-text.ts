// `body_html` as elements: created one by one from an allow-list, so that no text is ever parsed as HTML.
//
// The service sanitises it and writes it in one form (html5ever's), the only form that is read here. Anything else stays
// text. A page that requires Trusted Types needs no exception.

import { safeUrl } from './safe-url.js';

const ALLOWED = /^(p|br|strong|em|b|i|ul|ol|li|blockquote|code|pre|a)$/;
const HEADING = /^h[1-4]$/;
const TOKEN = /<(\/?)([a-z][a-z0-9]*)((?:\s[^\s="<>]+="[^"]*")*)\s*>|[^<]+|</g;
const HREF = /\shref="([^"]*)"/;
const CHARACTERS: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', nbsp: '\u00a0' };

export function richText(html: string): DocumentFragment {
  const root = document.createDocumentFragment();
  const open: { name: string; node: Node }[] = [{ name: '', node: root }];
  for (const [text, slash, name = '', attributes = ''] of html.matchAll(TOKEN)) {
    const parent = open.at(-1)!.node;
    if (!name) parent.appendChild(document.createTextNode(decode(text)));
    else if (slash) close(open, name);
    else if (ALLOWED.test(name) || HEADING.test(name)) {
      const element = parent.appendChild(create(name, attributes));
      if (name !== 'br') open.push({ name, node: element });
    }
  }
  return root;
}

function close(open: { name: string }[], name: string): void {
  const at = open.findLastIndex((each) => each.name === name);
  if (at > 0) open.length = at;
}

function create(name: string, attributes: string): HTMLElement {
  if (HEADING.test(name)) return document.createElement('h4'); // below the day's
  const element = document.createElement(name);
  if (element instanceof HTMLAnchorElement) {
    const url = safeUrl(decode(HREF.exec(attributes)?.[1] ?? ''), 'mailto:');
    if (url !== null) element.href = url;
    element.rel = 'noopener noreferrer';
  }
  return element;
}

function decode(text: string): string {
  return text.replace(/&(\w+);/g, (whole, name: string) => CHARACTERS[name] ?? whole);
}
