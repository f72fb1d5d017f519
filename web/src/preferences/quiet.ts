// Quiet hours: the hours in which no mail and no push is sent.

import { h } from '../shared/element.js';
import type { Context, Section } from './context.js';
import { Draft } from './draft.js';
import { AfterTyping, failure, ownZone, section, showFailure, type Zones, zones } from './parts.js';
import type { Category } from './rules.js';

interface QuietHours {
  starts: string | null;
  ends: string | null;
  timezone: string;
}

const PATH = 'quiet-hours/';
const NIGHT = { starts: '22:00', ends: '07:00' };

export class Quiet implements Section {
  readonly element: HTMLElement;
  readonly #draft: Draft<QuietHours, QuietHours>;
  readonly #failed = failure();
  readonly #box = h('input', { type: 'checkbox', class: 'switch own' });
  readonly #starts: HTMLInputElement;
  readonly #ends: HTMLInputElement;
  readonly #zones: Zones;
  readonly #details: HTMLElement;
  readonly #typing = new AfterTyping(() => this.#setHours());

  private constructor(
    private readonly context: Context,
    catalogue: Category[],
    hours: QuietHours,
  ) {
    const { speech, api } = context;
    this.#draft = new Draft<QuietHours, QuietHours>(
      hours,
      (_, change) => change,
      (change) => api.json('PUT', PATH, change),
      () => {
        this.#show();
        context.saving();
      },
    );
    this.#box.addEventListener('change', () => this.#turn(this.#box.checked));
    this.#starts = h('input', { type: 'time', required: true, oninput: this.#typing.typed });
    this.#ends = h('input', { type: 'time', required: true, oninput: this.#typing.typed });
    this.#zones = zones(speech, [ownZone(), hours.timezone, 'UTC'], (timezone) =>
      this.#change({ ...this.#draft.state, timezone }),
    );
    const urgent = catalogue
      .flatMap(({ event_types }) => event_types)
      .filter(({ priority }) => priority === 'high')
      .map(({ label }) => label);
    this.#details = h(
      'div',
      { class: 'details' },
      h(
        'div',
        { class: 'fields' },
        h('label', { class: 'field' }, h('span', {}, speech.say('starts')), this.#starts),
        h('label', { class: 'field' }, h('span', {}, speech.say('ends')), this.#ends),
        h('label', { class: 'field wide' }, h('span', {}, speech.say('timezone')), this.#zones.element),
      ),
      h('p', { class: 'note', hidden: urgent.length === 0 }, speech.say('urgent', { types: speech.list(urgent) })),
    );
    const turn = h('label', { class: 'turn' }, this.#box, h('span', {}, speech.say('quietOn')));
    this.element = section('quiet', speech.say('quiet'), speech.say('quietHint'), turn, this.#failed, this.#details);
    this.#show();
  }

  static async read(context: Context, catalogue: Category[]): Promise<Quiet> {
    return new Quiet(context, catalogue, await context.api.json<QuietHours>('GET', PATH));
  }

  get saving(): boolean {
    return this.#draft.saving;
  }

  async refresh(): Promise<void> {
    await this.#draft.refresh(() => this.context.api.json<QuietHours>('GET', PATH));
  }

  #turn(on: boolean): void {
    this.#typing.cancel();
    const { timezone } = this.#draft.state;
    const zone = timezone === 'UTC' ? ownZone() : timezone;
    this.#change(on ? { ...NIGHT, timezone: zone } : { starts: null, ends: null, timezone });
  }

  #setHours(): void {
    const [starts, ends] = [this.#starts.value, this.#ends.value];
    if (!starts || !ends) return;
    if (starts === ends) return showFailure(this.#failed, this.context.speech.say('quietSame'));
    this.#change({ ...this.#draft.state, starts, ends });
  }

  async #change(change: QuietHours): Promise<void> {
    const before = this.#draft.state;
    const { speech } = this.context;
    showFailure(this.#failed, null);
    try {
      await this.#draft.change(change);
      const { starts, ends } = change;
      const sentence =
        starts && ends
          ? speech.say('quietSet', { starts: speech.time(starts), ends: speech.time(ends) })
          : speech.say('quietOff');
      this.context.announce(sentence, () => this.#change(before));
    } catch (problem) {
      showFailure(this.#failed, this.context.failed(problem));
    }
  }

  #show(): void {
    const { starts, ends, timezone } = this.#draft.state;
    this.#box.checked = starts !== null;
    this.#details.hidden = starts === null;
    this.#zones.show(timezone);
    if (this.#typing.waits) return; // the times in the fields are saved soon
    const focused = (this.#starts.getRootNode() as Document | ShadowRoot).activeElement;
    if (starts && focused !== this.#starts) this.#starts.value = starts;
    if (ends && focused !== this.#ends) this.#ends.value = ends;
  }
}
