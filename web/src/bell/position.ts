// The position of the panel: below or above the bell, where there is space, within the window.

const GAP = 8;

/** Set through the object model, which a policy against inline styles allows. */
export function place(panel: HTMLElement, button: HTMLElement): void {
  const { top, bottom, left, right } = button.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const atEnd = left + right > clientWidth;
  const below = top + bottom < clientHeight;
  const sides = [
    below && bottom + GAP,
    atEnd && Math.max(GAP, clientWidth - right),
    !below && clientHeight - top + GAP,
    !atEnd && Math.max(GAP, left),
  ];
  panel.style.setProperty('--inset', sides.map(pixels).join(' '));
  panel.style.setProperty('--room', pixels((below ? clientHeight - bottom : top) - 2 * GAP));
}

function pixels(size: number | false): string {
  return size === false ? 'auto' : `${Math.round(size)}px`;
}
