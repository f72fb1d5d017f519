// One of all tabs is the leader: by a Web Lock, which the browser passes on when that tab ends for any reason.

interface Listener<Message> {
  /** This tab leads until the signal. */
  lead(signal: AbortSignal): void;
  message(message: Message): void;
}

export class Tabs<Message> {
  readonly #closing = new AbortController();
  readonly #channel: BroadcastChannel;
  #lead: AbortController | null = null;

  constructor(
    private readonly name: string,
    private readonly listener: Listener<Message>,
  ) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => listener.message(data);
  }

  start(): void {
    if (navigator.locks) this.#queue({ signal: this.#closing.signal });
    else this.#start(); // a page with plain http: each tab has its own stream
  }

  /** Sends a message to all other tabs. */
  post(message: Message): void {
    if (!this.#closing.signal.aborted) this.#channel.postMessage(message);
  }

  /** Takes over if the leader does not reply: a frozen tab keeps its lock. */
  steal(): void {
    if (navigator.locks && this.#lead === null) this.#queue({ steal: true });
  }

  close(): void {
    this.#closing.abort();
    this.#stop();
    this.#channel.close();
  }

  #queue(options: LockOptions): void {
    const held = navigator.locks.request(this.name, options, () => this.#start());
    held
      .catch(() => {}) // closed while waiting, or taken over
      .then(() => {
        this.#stop();
        if (!this.#closing.signal.aborted && !options.steal) this.#queue(options);
      });
  }

  #start(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve();
    const lead = (this.#lead = new AbortController());
    this.listener.lead(lead.signal);
    return new Promise((resolve) => lead.signal.addEventListener('abort', () => resolve()));
  }

  #stop(): void {
    this.#lead?.abort();
    this.#lead = null;
  }
}
