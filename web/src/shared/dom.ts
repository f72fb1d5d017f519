// Elements are created one by one: text never becomes markup.

type Child = Node | string | null;

/** An element with attributes (false and null: none) and children. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Record<string, string | number | boolean | null> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) setAttribute(element, key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A button with a class and a part (null: none). */
export function button(kind: string | null, part: string | null, ...children: Child[]): HTMLButtonElement {
  return h('button', { type: 'button', class: kind, part }, ...children);
}

/** Sets or removes it, only if that changes something. */
export function setAttribute(element: Element, name: string, value: string | number | boolean | null): void {
  const text = value === true ? '' : value === false || value === null ? null : String(value);
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** These children in this order; those already in place are not touched, so that they keep the focus. */
export function place(parent: Element, children: readonly Element[]): void {
  const wanted = new Set<Element>(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
}

/** An icon of 24 by 24, in the colour of the text around it. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const drawn = document.createElementNS(svg.namespaceURI, 'path');
  drawn.setAttribute('d', path);
  svg.append(drawn);
  return svg;
}
