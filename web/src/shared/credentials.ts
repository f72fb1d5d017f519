// The credentials: a token, a callback that returns one, or the cookie of Tocsin's own origin.

/** Returns a token of the signed-in person; null: nobody is signed in. */
export type GetToken = () => string | null | Promise<string | null>;

export class Credentials {
  #token: string | null;
  readonly #getToken: GetToken | null;
  #asked: Promise<string | null> | null = null;

  constructor(token: string | null, getToken: GetToken | null) {
    this.#token = getToken === null ? token : null;
    this.#getToken = getToken;
  }

  /** Whether the browser's cookie identifies the person. */
  get byCookie(): boolean {
    return this.#token === null && this.#getToken === null;
  }

  /** The token to send, or null for the cookie. Concurrent calls share one request for it. */
  async token(): Promise<string | null> {
    if (this.#token !== null || this.#getToken === null) return this.#token;
    this.#asked ??= Promise.resolve()
      .then(this.#getToken)
      .finally(() => (this.#asked = null));
    return (this.#token = await this.#asked);
  }

  /** This token was refused, or the current one has expired: the next call gets another. Returns false if there is none. */
  refused(token: string | null = this.#token): boolean {
    if (this.#getToken === null) return false;
    if (this.#token === token) this.#token = null;
    return true;
  }
}
