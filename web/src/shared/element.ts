// Elements with listeners, and properties that were set before an element was defined.

import { h as made, icon, setAttribute } from './dom.js';

/** A server that renders pages imports the modules too, but has no elements. */
export const ElementBase = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

export function define(name: string, element: CustomElementConstructor): void {
  const { customElements: known } = globalThis;
  if (!known?.get(name)) known?.define(name, element);
}

type Value = string | number | boolean | null | undefined | ((event: Event) => void);
type Child = Node | string | null | undefined | false;

/** Like `h` of dom.ts, also with listeners: `onclick`. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  props: Record<string, Value> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = made(name, {}, ...children.map((child) => child || null));
  set(element, props);
  return element;
}

/** Changes attributes and adds listeners. */
export function set(element: Element, props: Record<string, Value>): void {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value ?? null);
  }
}

/** An icon of this many pixels. */
export function drawing(path: string, size = 20): SVGSVGElement {
  const svg = icon(path);
  set(svg, { width: size, height: size });
  return svg;
}

/** Passes properties that a page set before the module was loaded to the element's own setters. */
export function upgrade(element: HTMLElement, names: readonly string[]): void {
  const properties = element as unknown as Record<string, unknown>;
  for (const name of names) {
    if (!Object.hasOwn(element, name)) continue;
    const value = properties[name];
    delete properties[name];
    properties[name] = value;
  }
}
