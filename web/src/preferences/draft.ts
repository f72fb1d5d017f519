// The last state of the service, with the pending changes applied to it.

/** Changes show at once, are saved one after the other, and are reverted if the service refuses them. */
export class Draft<State, Change> {
  #saved: State;
  #underWay: { change: Change }[] = [];
  #changes = 0;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    saved: State,
    private readonly apply: (state: State, change: Change) => State,
    private readonly save: (change: Change) => Promise<State>,
    private readonly changed: () => void,
  ) {
    this.#saved = saved;
  }

  /** The state when all changes are saved. */
  get state(): State {
    return this.#underWay.reduce((state, { change }) => this.apply(state, change), this.#saved);
  }

  get saving(): boolean {
    return this.#underWay.length > 0;
  }

  /** Resolves when it is saved; rejects with the Problem after reverting it. */
  change(change: Change): Promise<void> {
    const mine = { change };
    this.#underWay.push(mine);
    this.#changes++;
    this.changed();
    const saved = this.#last.then(async () => {
      try {
        this.#saved = await this.save(change);
      } finally {
        this.#underWay.splice(this.#underWay.indexOf(mine), 1);
        this.#changes++;
        this.changed();
      }
    });
    this.#last = saved.catch(() => undefined);
    return saved;
  }

  /** Loads the current state. A response that may be older than a change, or than its end, is ignored. */
  async refresh(read: () => Promise<State>): Promise<void> {
    const before = this.#changes;
    const saved = await read();
    if (before !== this.#changes) return;
    this.#saved = saved;
    this.changed();
  }
}
