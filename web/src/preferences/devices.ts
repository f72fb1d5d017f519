// The phones and browsers on which push notifications arrive.

import { drawing, h, set } from '../shared/element.js';
import type { Context, Section } from './context.js';
import { failure, section, showFailure } from './parts.js';

interface Device {
  id: number;
  token: string;
  platform: string;
  label: string | null;
  registered_at: string;
  disabled_at: string | null;
  disabled_reason: string | null;
}

const PATH = 'push-tokens/';
const PHONE = 'M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1zM11 18h2';
const BROWSER = 'M4 5h16a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1zM3 9h18';
const GONE = /unregistered|baddevicetoken|expiredtoken|not_found|404/i;

export class Devices implements Section {
  readonly element: HTMLElement;
  readonly #list = h('ul', { class: 'items' });
  readonly #empty: HTMLElement;
  #devices: Device[] = [];
  #underWay = 0;
  #removals = 0;

  private constructor(private readonly context: Context) {
    const { speech } = context;
    this.#empty = h('p', { class: 'empty' }, speech.say('noDevices'));
    this.element = section('devices', speech.say('devices'), speech.say('devicesHint'), this.#list, this.#empty);
  }

  static async read(context: Context): Promise<Devices> {
    const devices = new Devices(context);
    await devices.refresh();
    return devices;
  }

  get saving(): boolean {
    return this.#underWay > 0;
  }

  /** Unchanged rows are not drawn again: the person may be about to remove one. */
  async refresh(): Promise<void> {
    if (this.saving) return;
    const before = this.#removals;
    const { results } = await this.context.api.json<{ results: Device[] }>('GET', PATH);
    if (before !== this.#removals || JSON.stringify(results) === JSON.stringify(this.#devices)) return;
    this.#devices = results;
    this.#list.replaceChildren(...results.map((device) => this.#row(device)));
    this.#count();
  }

  #row(device: Device): HTMLLIElement {
    const { speech } = this.context;
    const name = this.#name(device);
    const failed = failure();
    const remove = h('button', { type: 'button', class: 'plain' }, speech.say('remove'));
    set(remove, { 'aria-label': speech.say('removeWhat', { device: name }) });
    const about = [
      device.label ? this.#kind(device) : null,
      speech.say('lastSeen', { when: speech.ago(device.registered_at) }),
    ];
    const item = h(
      'li',
      { class: device.disabled_at ? 'item dead' : 'item' },
      h(
        'div',
        { class: 'what' },
        h('p', { class: 'name' }, drawing(device.platform === 'web' ? BROWSER : PHONE, 18), h('span', { dir: 'auto' }, name)),
        h('p', { class: 'about' }, about.filter(Boolean).join(' · ')),
        device.disabled_at && h('p', { class: 'about dead' }, speech.say('deadDevice', { why: this.#why(device) })),
        failed,
      ),
      h('div', { class: 'actions' }, remove),
    );
    remove.addEventListener('click', () => this.#ask(device, item, remove, failed));
    return item;
  }

  /** Asks for confirmation, since only the device itself can register again. */
  #ask(device: Device, item: HTMLElement, remove: HTMLElement, failed: HTMLElement): void {
    const { speech } = this.context;
    const name = this.#name(device);
    const keep = h('button', { type: 'button', class: 'plain' }, speech.say('keep'));
    const really = h('button', { type: 'button', class: 'danger' }, speech.say('remove'));
    const question = h(
      'div',
      { class: 'question', role: 'group', 'aria-label': speech.say('removeWhat', { device: name }) },
      h('p', {}, speech.say('reallyRemove', { device: name })),
      h('div', { class: 'actions' }, really, keep),
    );
    const close = () => {
      question.remove();
      remove.hidden = false;
      remove.focus();
    };
    keep.addEventListener('click', close);
    question.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      close();
    });
    really.addEventListener('click', () => this.#remove(device, item, failed, close));
    remove.hidden = true;
    showFailure(failed, null);
    item.append(question);
    question.scrollIntoView({ block: 'center' }); // not behind the notice of the last change
    really.focus();
  }

  async #remove(device: Device, item: HTMLElement, failed: HTMLElement, close: () => void): Promise<void> {
    this.#underWay++;
    this.#removals++;
    this.context.saving();
    item.classList.add('leaving');
    try {
      await this.context.api.json('DELETE', `${PATH}${device.id}/`);
      const beside = item.nextElementSibling ?? item.previousElementSibling;
      item.remove();
      this.#devices = this.#devices.filter(({ id }) => id !== device.id);
      this.#count();
      (beside?.querySelector('button') ?? this.element.querySelector('h2'))?.focus();
      this.context.announce(this.context.speech.say('nowRemoved', { device: this.#name(device) }));
    } catch (problem) {
      close();
      showFailure(failed, this.context.failed(problem));
    } finally {
      item.classList.remove('leaving');
      this.#underWay--;
      this.context.saving();
    }
  }

  #count(): void {
    this.#empty.hidden = this.#devices.length > 0;
    this.#list.hidden = this.#devices.length === 0;
  }

  /** The label; else the platform, with the end of the token if there are several devices. */
  #name(device: Device): string {
    const { label, token } = device;
    return label ?? `${this.#kind(device)}, ${this.context.speech.say('token', { token })}`;
  }

  #kind({ platform }: Device): string {
    return this.context.speech.say(platform === 'web' ? 'web' : platform === 'ios' ? 'ios' : 'android');
  }

  #why({ platform, disabled_reason }: Device): string {
    const { speech } = this.context;
    if (platform === 'web' && disabled_reason?.startsWith('web_push')) return speech.say('deadBrowser');
    if (disabled_reason === 'stale') return speech.say('deadStale');
    return speech.say(GONE.test(disabled_reason ?? '') ? 'deadGone' : 'deadOther');
  }
}
