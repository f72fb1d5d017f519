// Who is signed in: by a token, by a callback that gets one, or by the cookie of Tocsin's own origin.

/** Gets a token of whoever is signed in; null: nobody is. */
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

  /** The token to send, or null by cookie. While one is being got, everybody waits for the same one. */
  async token(): Promise<string | null> {
    if (this.#token !== null || this.#getToken === null) return this.#token;
    this.#asked ??= Promise.resolve()
      .then(this.#getToken)
      .finally(() => (this.#asked = null));
    return (this.#token = await this.#asked);
  }

  /** This token is refused, or whichever there is has expired: the next call gets another. False: it can't be got. */
  refused(token: string | null = this.#token): boolean {
    if (this.#getToken === null) return false;
    if (this.#token === token) this.#token = null;
    return true;
  }
}
