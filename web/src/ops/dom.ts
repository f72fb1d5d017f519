// Elements are created once and updated in place: the page is updated every two seconds and must not lose focus, selection or an open detail.

type Child = Node | string | null | undefined | false;

/** An element; `class`, `text` and `on…` besides attributes. Never markup: the text may come from anyone. */
export function el<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Record<string, string | null> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children.filter((child): child is Node | string => !!child || child === ''));
  return made;
}

export function svg(name: string, attributes: Record<string, string | number> = {}, ...children: Node[]): SVGElement {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/** Sets attributes; null removes one. */
export function set(element: Element, attributes: Record<string, string | null>): void {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(key);
    else if (element.getAttribute(key) !== value) element.setAttribute(key, value);
  }
}

/** Sets the text of an element, if it changed. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A sentence whose `code` parts become code elements. */
export function sayWithCode(element: HTMLElement, text: string): void {
  if (element.dataset['shown'] === text) return;
  element.dataset['shown'] = text;
  element.replaceChildren(...text.split('`').map((part, place) => (place % 2 ? el('code', {}, part) : part)));
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no #${id}`);
  return found as T;
}

/** A child for each item, in their order; one with the same key is kept and updated, others are created and removed. */
export function keyed<T, E extends HTMLElement>(
  parent: Element,
  items: readonly T[],
  key: (item: T) => string,
  make: (item: T) => E,
  update: (element: E, item: T) => void,
): void {
  const there = new Map(Array.from(parent.children, (child) => [(child as HTMLElement).dataset['key'], child as E]));
  let place: Element | null = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const known = there.get(name);
    const element = known ?? make(item);
    if (!known) element.dataset['key'] = name;
    there.delete(name);
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of there.values()) gone.remove();
}
