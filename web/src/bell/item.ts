// A row of the list: one notification, or a group that opens in place.

import type { Notification } from '../public/tocsin-bell.js';
import { button, h, icon, place, setAttribute, setText } from '../shared/dom.js';
import { ActionsView } from './actions.js';
import { avatar } from './avatar.js';
import type { Entry } from './entry.js';
import { ARCHIVE, CHEVRON, READ, UNREAD } from './icons.js';
import { richText } from './rich-text.js';
import { safeUrl } from './safe-url.js';
import type { Times } from './time.js';
import type { Language } from './words.js';

export interface ItemActions {
  open(entry: Entry, event: Event): void;
  setRead(entry: Entry, read: boolean): void;
  archive(entry: Entry): void;
  press(entry: Entry, key: string): void;
  /** Opens or closes a group. */
  toggle(entry: Entry): void;
  /** Loads older members of a group. */
  moreOf(entry: Entry): void;
}

/** What all rows of one drawing have in common. */
export interface Drawing {
  language: Language;
  times: Times;
  now: Date;
  category(notification: Notification): string;
}

export class ItemView {
  readonly element = h('li', { class: 'item' });
  readonly #row = h('div', { class: 'row' });
  readonly #unread = h('span', { class: 'sr' });
  readonly #time = h('time');
  readonly #toggle = button('icon', 'action');
  readonly #archive = button('icon', 'action', icon(ARCHIVE));
  readonly #category = h('span');
  readonly #many = h('span');
  readonly #disclose = button('many', 'group', this.#many, icon(CHEVRON));
  readonly #members = h('ul', { role: 'list', class: 'members', part: 'members' });
  readonly #older = button('more', null);
  #opener: HTMLElement | null = null;
  #actions: ActionsView | null = null;
  #drawn = ''; // what the row was made of
  #views = new Map<Entry, ItemView>();

  constructor(
    readonly entry: Entry,
    private readonly actions: ItemActions,
  ) {
    this.#toggle.addEventListener('click', () => actions.setRead(entry, entry.unread > 0));
    this.#archive.addEventListener('click', () => actions.archive(entry));
    this.#disclose.addEventListener('click', () => actions.toggle(entry));
    this.#older.addEventListener('click', () => actions.moreOf(entry));
    this.element.append(this.#row);
  }

  /** The element that opens it; the arrow keys move between these. */
  get opener(): HTMLElement {
    return this.#opener!;
  }

  /** This row and those of its open group, in their order. */
  get rows(): ItemView[] {
    return this.entry.open ? [this, ...[...this.#views.values()].flatMap((view) => view.rows)] : [this];
  }

  /** What can have the focus in this row, in its order. */
  get controls(): HTMLElement[] {
    return [...this.#row.querySelectorAll<HTMLElement>('a, button')].filter((each) => each.checkVisibility());
  }

  update(drawing: Drawing): void {
    const { entry } = this;
    const { latest, unread, title } = entry;
    const made = JSON.stringify([title, latest.id, latest.body, latest.action_url, latest.initiator_profile, entry.count > 1, latest.actions]);
    if (made !== this.#drawn) this.#make(drawing);
    this.#drawn = made;
    const { language, times, now } = drawing;
    const at = new Date(latest.created_at);
    this.element.classList.toggle('unread', unread > 0);
    setAttribute(this.element, 'part', unread ? 'item item-unread' : 'item');
    setText(this.#unread, unread ? `${language.say('isUnread')} ` : '');
    setText(this.#category, drawing.category(latest));
    setText(this.#time, times.moment(at, now));
    setAttribute(this.#time, 'datetime', latest.created_at);
    setAttribute(this.#time, 'title', times.full(at));
    this.#name(this.#toggle, language.say(unread ? 'markRead' : 'markUnread'));
    if (this.#toggle.dataset.unread !== String(unread > 0)) {
      this.#toggle.dataset.unread = String(unread > 0);
      this.#toggle.replaceChildren(icon(unread ? READ : UNREAD));
    }
    this.#name(this.#archive, language.say(latest.archived ? 'unarchive' : 'archive'));
    if (this.#actions?.update(language)) this.opener.focus(); // the button that had it is gone
    this.#updateGroup(drawing);
  }

  #updateGroup(drawing: Drawing): void {
    const { count, capped, open, members, older, title } = this.entry;
    const { language } = drawing;
    const many = language.say('many', count) + (capped ? '+' : '');
    this.#disclose.hidden = count < 2;
    setText(this.#many, many);
    setAttribute(this.#disclose, 'aria-expanded', String(!!open));
    setAttribute(this.#disclose, 'aria-label', `${many}: ${title}`);
    if (!open && this.#members.parentElement === null) return;
    const views = new Map<Entry, ItemView>();
    for (const member of members ?? []) views.set(member, this.#views.get(member) ?? new ItemView(member, this.actions));
    for (const view of views.values()) view.update(drawing);
    this.#views = views;
    setText(this.#older, language.say('older'));
    const rows = [...views.values()].map(({ element }) => element);
    if (older) rows.push(this.#older.parentElement as HTMLLIElement ?? h('li', {}, this.#older));
    place(this.#members, members ? rows : [bone('li')]);
    place(this.element, open ? [this.#row, this.#members] : [this.#row]);
  }

  /** Draws the parts that hold content. The focus stays on the opener. */
  #make({ language, category }: Drawing): void {
    const { entry } = this;
    const { latest, title, count, parent } = entry;
    const { activeElement: focused } = this.element.getRootNode() as ShadowRoot;
    const wasOpener = focused && focused === this.#opener;
    const text = h('span', { dir: 'auto', class: 'title', part: 'item-title' }, title);
    const url = safeUrl(latest.action_url);
    const opener = url === null ? button('open', null, this.#unread, text) : h('a', { href: url, class: 'open' }, this.#unread, text);
    opener.addEventListener('click', (event) => {
      this.element.classList.add('whole');
      this.actions.open(entry, event);
    });
    opener.addEventListener('auxclick', (event) => (event as MouseEvent).button === 1 && this.actions.open(entry, event));
    this.#opener = opener;
    this.#actions = latest.actions && count === 1 ? new ActionsView(entry, (key) => this.actions.press(entry, key)) : null;
    const meta = h('div', { class: 'meta' }, parent ? null : this.#category, this.#time, this.#disclose);
    const what = h('div', { class: 'what' }, opener, body(latest), this.#actions?.element ?? null, meta);
    this.#row.replaceChildren(avatar(latest, category(latest), language.lang), what, h('div', { class: 'tools' }, this.#toggle, this.#archive));
    for (const control of this.#row.querySelectorAll('a, button')) setAttribute(control, 'tabindex', -1); // the list has one tab stop
    if (wasOpener) opener.focus();
    else if (focused && this.#row.contains(focused)) (focused as HTMLElement).focus();
  }

  #name(named: HTMLElement, name: string): void {
    setAttribute(named, 'title', name);
    setAttribute(named, 'aria-label', `${name}: ${this.entry.title}`);
  }
}

/** A grey shape in place of a row that is being loaded. */
export function bone(name: 'li' | 'div'): HTMLElement {
  return h(name, { class: 'bone', 'aria-hidden': 'true' });
}

function body({ body, body_html }: Notification): HTMLElement | null {
  if (body_html) return h('div', { class: 'body rich', dir: 'auto', part: 'item-body' }, richText(body_html));
  return body ? h('p', { class: 'body', dir: 'auto', part: 'item-body' }, body) : null;
}
