// Charts as SVG: stacked bars, and lines. The labels are HTML next to it, so that they are not stretched.

import { el, say, set, svg } from './dom.js';
import { clock } from './format.js';

const WIDTH = 600;
const HEIGHT = 120;

export interface Line {
  name: string;
  kind: string; // its class
  values: readonly (number | null)[];
}

export interface Drawing {
  times: readonly string[];
  lines: readonly Line[];
  /** A value as text. */
  say: (value: number) => string;
  /** A text alternative for the whole chart. */
  summary: string;
  logarithmic?: boolean;
  bars?: boolean;
}

/** One chart: its title, the drawing, the values under the pointer, and the same as a table. */
export class Chart {
  readonly element: HTMLElement;
  readonly #svg = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
  readonly #top = el('span', { class: 'top' });
  readonly #bottom = el('span', { class: 'bottom' }, '0');
  readonly #from = el('span');
  readonly #middle = el('span');
  readonly #readout = el('span', { class: 'readout', 'aria-hidden': 'true' });
  readonly #legend = el('span', { class: 'legend' });
  readonly #guide = svg('line', { class: 'guide', y1: 0, y2: HEIGHT, x1: -9, x2: -9 });
  readonly #table = el('table');
  readonly #details: HTMLDetailsElement;
  #drawing: Drawing | null = null;
  #under: number | null = null;

  constructor(title: string, of: string) {
    const unseen = el('span', { class: 'unseen' }, `: ${of}, ${title}`);
    this.#details = el('details', {}, el('summary', {}, 'As a table', unseen));
    const box = el('div', { class: 'scroll', role: 'region', tabindex: '0', 'aria-label': `${of}, ${title}, as a table` });
    box.append(this.#table);
    this.#details.append(box);
    this.#details.addEventListener('toggle', () => this.#tabulate());
    const plot = el('div', { class: 'plot' }, this.#svg, this.#top, this.#bottom);
    plot.addEventListener('pointermove', (event) => this.#point(event, plot));
    plot.addEventListener('pointerleave', () => this.#point(null, plot));
    const caption = el('figcaption', {}, el('span', { class: 'title' }, title), this.#legend, this.#readout);
    const axis = el('div', { class: 'axis', 'aria-hidden': 'true' }, this.#from, this.#middle, el('span', {}, 'now'));
    this.element = el('figure', { class: 'chart' }, caption, plot, axis, this.#details);
  }

  draw(drawing: Drawing): void {
    this.#drawing = drawing;
    const { times, lines } = drawing;
    const drawn = drawing.bars ? bars(lines, highest(stacked(lines))) : drawLines(drawing);
    const top = drawing.bars ? highest(stacked(lines)) : ceiling(drawing);
    this.#svg.replaceChildren(svg('line', { class: 'half', x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }), ...drawn, this.#guide);
    set(this.#svg, { 'aria-label': drawing.summary });
    say(this.#top, drawing.say(top));
    say(this.#bottom, drawing.logarithmic ? drawing.say(FLOOR) : '0');
    say(this.#from, clock(times[0] ?? ''));
    say(this.#middle, clock(times[Math.floor(times.length / 2)] ?? ''));
    this.#legend.replaceChildren(
      ...lines.map((line) => el('span', { class: `key ${line.kind}` }, el('i', { 'aria-hidden': 'true' }), line.name)),
    );
    this.#read();
    this.#tabulate();
  }

  #point(event: PointerEvent | null, plot: HTMLElement): void {
    const count = this.#drawing?.times.length ?? 0;
    const box = plot.getBoundingClientRect();
    const place = event && count ? Math.floor(((event.clientX - box.left) / box.width) * count) : -1;
    this.#under = place >= 0 && place < count ? place : null;
    const x = this.#under === null ? -9 : ((this.#under + 0.5) / count) * WIDTH;
    for (const side of ['x1', 'x2']) this.#guide.setAttribute(side, String(x));
    this.#read();
  }

  /** The values under the pointer, instead of the legend. */
  #read(): void {
    const drawing = this.#drawing;
    const under = this.#under;
    const time = under === null ? undefined : drawing?.times[under];
    this.#legend.hidden = time !== undefined;
    if (!drawing || under === null || time === undefined) return say(this.#readout, '');
    const parts = drawing.lines.flatMap((line) => {
      const value = line.values[under];
      return value ? [`${drawing.say(value)} ${line.name}`] : [];
    });
    say(this.#readout, `${clock(time)}: ${parts.join(', ') || 'nothing'}`);
  }

  /** Created only while it is open: it has a row for each step. */
  #tabulate(): void {
    const drawing = this.#drawing;
    if (!drawing || !this.#details.open) return this.#table.replaceChildren();
    const heads = ['From (UTC)', ...drawing.lines.map((line) => line.name)];
    const rows = drawing.times.map((time, place) => {
      const cells = drawing.lines.map((line) => {
        const value = line.values[place];
        return el('td', { class: 'n' }, value === null || value === undefined ? '–' : drawing.say(value));
      });
      return el('tr', {}, el('th', { scope: 'row' }, clock(time)), ...cells);
    });
    this.#table.replaceChildren(
      el('thead', {}, el('tr', {}, ...heads.map((head) => el('th', { scope: 'col' }, head)))),
      el('tbody', {}, ...rows.reverse()),
    );
  }
}

const FLOOR = 0.01; // seconds; the start of a logarithmic scale

function stacked(lines: readonly Line[]): number[] {
  const count = lines[0]?.values.length ?? 0;
  return Array.from({ length: count }, (_, place) => lines.reduce((sum, line) => sum + (line.values[place] ?? 0), 0));
}

/** The next round number: 1, 2 or 5 followed by zeros. */
function highest(values: readonly number[]): number {
  const most = Math.max(1, ...values);
  const unit = 10 ** Math.floor(Math.log10(most));
  return unit * ([1, 2, 5, 10].find((each) => each * unit >= most) ?? 10);
}

function ceiling(drawing: Drawing): number {
  const values = drawing.lines.flatMap((line) => line.values.filter((value) => value !== null));
  if (!drawing.logarithmic) return highest(values);
  const most = Math.max(0, ...values);
  return [1, 10, 60, 600, 3600, 86_400].find((each) => each >= most) ?? 864_000;
}

/** One path for each kind, so that a chart has few elements for any number of bars; the last step is still running. */
function bars(lines: readonly Line[], top: number): SVGElement[] {
  const count = lines[0]?.values.length ?? 1;
  const width = WIDTH / count;
  const gap = Math.min(1.5, width / 5);
  const from = new Array<number>(count).fill(0);
  return lines.flatMap((line) => {
    let done = '';
    let now = '';
    line.values.forEach((value, place) => {
      if (!value) return;
      const y0 = HEIGHT - ((from[place] ?? 0) / top) * HEIGHT;
      from[place] = (from[place] ?? 0) + value;
      // one failure among thousands must be visible
      const y1 = Math.min(y0 - 2, HEIGHT - ((from[place] ?? 0) / top) * HEIGHT);
      const x = place * width;
      const bar = `M${x + gap} ${y0}V${y1}H${x + width - gap}V${y0}Z`;
      if (place === count - 1) now += bar;
      else done += bar;
    });
    return [svg('path', { class: `bar ${line.kind}`, d: done }), svg('path', { class: `bar now ${line.kind}`, d: now })];
  });
}

function drawLines(drawing: Drawing): SVGElement[] {
  const top = ceiling(drawing);
  const height = (value: number) =>
    drawing.logarithmic
      ? HEIGHT - (Math.log(Math.max(value, FLOOR) / FLOOR) / Math.log(top / FLOOR)) * (HEIGHT - 4) - 2
      : HEIGHT - (value / top) * (HEIGHT - 4) - 2;
  return drawing.lines.map((line) => {
    const step = WIDTH / line.values.length;
    let path = '';
    line.values.forEach((value, place) => {
      if (value === null) return;
      const [before, after] = [line.values[place - 1] ?? null, line.values[place + 1] ?? null];
      const [x, y] = [(place + 0.5) * step, height(value)];
      // a point without a neighbour is a short dash
      if (before === null && after === null) path += `M${x - step / 2} ${y}H${x + step / 2}`;
      else path += `${before === null ? 'M' : 'L'}${x} ${y}`;
    });
    return svg('path', { class: `line ${line.kind}`, d: path });
  });
}
