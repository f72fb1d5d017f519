// The position of the panel: below or above the bell, where there is space, within the window.

const GAP = 8;

/** Set through the object model, which a policy against inline styles allows. */
export function place(panel: HTMLElement, button: HTMLElement): void {
  const { top, bottom, left, right } = button.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const set = (property: string, pixels: number | null) =>
    pixels === null ? panel.style.removeProperty(property) : panel.style.setProperty(property, `${Math.round(pixels)}px`);
  const atEnd = left + right > clientWidth;
  const below = top + bottom < clientHeight;
  set('--right', atEnd ? Math.max(GAP, clientWidth - right) : null);
  set('--left', atEnd ? null : Math.max(GAP, left));
  set('--top', below ? bottom + GAP : null);
  set('--bottom', below ? null : clientHeight - top + GAP);
  set('--room', (below ? clientHeight - bottom : top) - 2 * GAP);
}
