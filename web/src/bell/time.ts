// Days and times in the reader's language.

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

export class Times {
  readonly #relative: Intl.RelativeTimeFormat;
  readonly #clock: Intl.DateTimeFormat;
  readonly #full: Intl.DateTimeFormat;

  constructor(private readonly locale: string) {
    this.#relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto', style: 'short' });
    this.#clock = new Intl.DateTimeFormat(locale, { timeStyle: 'short' });
    this.#full = new Intl.DateTimeFormat(locale, { dateStyle: 'full', timeStyle: 'short' });
  }

  /** For today: how long ago. For another day (its heading names it): the time. "now" if the clock is behind. */
  moment(at: Date, now: Date): string {
    const ago = now.getTime() - at.getTime();
    if (ago < MINUTE) return this.#relative.format(0, 'second');
    if (ago < HOUR) return this.#relative.format(-Math.floor(ago / MINUTE), 'minute');
    if (daysBefore(at, now) === 0) return this.#relative.format(-Math.floor(ago / HOUR), 'hour');
    return this.#clock.format(at);
  }

  full(at: Date): string {
    return this.#full.format(at);
  }

  day(at: Date, now: Date): string {
    const days = daysBefore(at, now);
    if (days < 2) return this.#relative.format(-Math.max(0, days), 'day');
    const year = at.getFullYear() === now.getFullYear() ? {} : ({ year: 'numeric' } as const);
    const form = { weekday: 'long', day: 'numeric', month: 'long', ...year } as const;
    return new Intl.DateTimeFormat(this.locale, form).format(at);
  }
}

/** Whole days by the reader's calendar; rounded, since a day may have 23 or 25 hours. */
function daysBefore(at: Date, now: Date): number {
  const midnight = (date: Date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  return Math.round((midnight(now) - midnight(at)) / (24 * HOUR));
}
