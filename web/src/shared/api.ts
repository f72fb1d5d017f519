// Calls of Tocsin's API.

import type { Credentials } from './credentials.js';

/** An error response (RFC 9457), or no response: then `status` is 0. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Milliseconds until a retry, if the service named them. */
    readonly retryAfter: number | null = null,
    readonly fields: readonly { field: string; message: string }[] = [],
    /** A word for programs, if the service has one. */
    readonly reason: string | null = null,
  ) {
    super(message);
  }

  /** Nobody is signed in, or the person may not do this. */
  get isSignedOut(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

/** Where the module came from: `https://host/prefix/assets/…/x.js` was served by `https://host/prefix/`. */
export function baseOf(module: string): string {
  return module.replace(/\/assets\/.*$/, '/');
}

const LONGEST = 30_000; // milliseconds that a response may take

export class Api {
  /** `base` is Tocsin's URL, with a slash at its end. */
  constructor(
    readonly base: string,
    public credentials: Credentials,
    private readonly fetcher?: typeof fetch,
  ) {}

  /** The response's JSON; undefined if it has none. */
  async json<T>(method: string, path: string, body?: unknown, options?: RequestInit): Promise<T> {
    const response = await this.call(method, path, body, options);
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  /** Returns a successful response; throws Problem. `path` is below `/api/`. A refused token is renewed once. */
  async call(method: string, path: string, body?: unknown, options: RequestInit = {}): Promise<Response> {
    for (let tries = 0; ; tries++) {
      const token = await this.#token();
      const response = await this.#fetch(method, path, body, token, options);
      if (response.ok) return response;
      if (response.status !== 401 || tries > 0 || !this.credentials.refused(token)) throw await problem(response);
    }
  }

  async #token(): Promise<string | null> {
    const token = await this.credentials.token().catch((error) => {
      throw new Problem(0, String(error));
    });
    // Without a token only the cookie is left, which is not sent to other origins.
    const home = new URL(this.base).origin === globalThis.location?.origin;
    if (token === null && !(this.credentials.byCookie && home)) throw new Problem(401, 'There is no token.');
    return token;
  }

  async #fetch(method: string, path: string, body: unknown, token: string | null, options: RequestInit) {
    const { fetcher = fetch } = this;
    const headers = new Headers(options.headers);
    if (token !== null) headers.set('Authorization', `Bearer ${token}`);
    if (body !== undefined) headers.set('Content-Type', 'application/json');
    try {
      return await fetcher(new URL(`api/${path}`, this.base), {
        signal: AbortSignal.timeout(LONGEST), // not of the stream, which has its own
        ...options,
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        credentials: token === null ? 'same-origin' : 'omit',
        cache: 'no-store',
      });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Problem(0, String(error));
    }
  }
}

async function problem(response: Response): Promise<Problem> {
  const details = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get('Retry-After') ?? NaN);
  const after = Number.isFinite(seconds) ? seconds * 1000 : null;
  return new Problem(response.status, details.detail ?? details.title ?? response.statusText, after, details.errors ?? [], details.reason ?? null);
}
