// What is on, and the source of each value: the rules of the service, so that a change shows at once.

export interface EventType {
  event_type: string;
  label: string;
  default_channels: string[];
  mandatory_channels: string[];
  priority: string;
  digest: boolean;
}

export interface Category {
  category: string;
  label: string;
  event_types: EventType[];
}

/** By `*`, `category.*` or event type: each channel that is chosen there. */
export type Overrides = Record<string, Record<string, boolean>>;

/** Changes to be merged into the overrides; null inherits again. */
export type Change = Record<string, Record<string, boolean | null>>;

export type Source = 'mandatory' | 'type' | 'category' | 'all' | 'default';

export interface Choice {
  on: boolean;
  source: Source;
}

/** The combined state of several types. */
export interface Sum {
  on: number;
  of: number;
  /** The override for all of them, if there is one. */
  own: boolean | undefined;
}

export const ALL = '*';

export function scopeOf(category: string): string {
  return `${category}.*`;
}

/** A mandatory channel is on; else the type's own choice, its category's, the one for all, the default. */
export function choiceOf(type: EventType, category: string, channel: string, overrides: Overrides): Choice {
  if (type.mandatory_channels.includes(channel)) return { on: true, source: 'mandatory' };
  const choices = [
    [type.event_type, 'type'],
    [scopeOf(category), 'category'],
    [ALL, 'all'],
  ] as const;
  for (const [scope, source] of choices) {
    const on = overrides[scope]?.[channel];
    if (on !== undefined) return { on, source };
  }
  return { on: isDefault(type, channel), source: 'default' };
}

/** A browser's push is on where the type lists push; a person's webhook and chat are, since somebody made the target for that. */
function isDefault(type: EventType, channel: string): boolean {
  if (channel === 'webhook' || channel === 'chat') return true;
  const also = channel === 'web_push' ? ['push', 'web_push'] : [channel];
  const listed = channel === 'web_push' ? [...type.default_channels, ...type.mandatory_channels] : type.default_channels;
  return listed.some((name) => also.includes(name));
}

/** The state of a category, or of all categories. */
export function sum(categories: Category[], scope: string, channel: string, overrides: Overrides): Sum {
  const settings = categories.flatMap(({ category, event_types }) =>
    event_types.map((type) => choiceOf(type, category, channel, overrides)),
  );
  return {
    on: settings.filter(({ on }) => on).length,
    of: settings.length,
    own: overrides[scope]?.[channel],
  };
}

/** The effect of a click on the switch of several types: on, unless they all are, or that was chosen already. */
export function next({ on, of, own }: Sum): boolean {
  if (on === of) return false;
  return on === 0 ? true : !own;
}

export function merged(overrides: Overrides, change: Change): Overrides {
  const result: Overrides = structuredClone(overrides);
  for (const [scope, channels] of Object.entries(change)) {
    const own = (result[scope] ??= {});
    for (const [channel, on] of Object.entries(channels)) {
      if (on === null) delete own[channel];
      else own[channel] = on;
    }
    if (Object.keys(own).length === 0) delete result[scope];
  }
  return result;
}

/** The change that reverts another one. */
export function reverse(change: Change, before: Overrides): Change {
  const entries = Object.entries(change).map(([scope, channels]) => [
    scope,
    Object.fromEntries(Object.keys(channels).map((channel) => [channel, before[scope]?.[channel] ?? null])),
  ]);
  return Object.fromEntries(entries);
}

/** The existing channels, well-known ones first. */
export function channelsOf(eventTypes: Record<string, Record<string, boolean>>): string[] {
  const known = ['in_app', 'email', 'push', 'web_push', 'webhook', 'chat'];
  const found = new Set(Object.values(eventTypes).flatMap(Object.keys));
  return [...known.filter((name) => found.has(name)), ...[...found].filter((name) => !known.includes(name)).sort()];
}
