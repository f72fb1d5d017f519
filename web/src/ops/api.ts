// Calls of /ops/api/, relative to the page, so that it works behind any prefix.

export class SignedOut extends Error {}

/** The service responds, but its database does not. */
export class Unavailable extends Error {}

export async function get<T>(path: string, query: Record<string, string | null> = {}): Promise<T> {
  const given = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== null && pair[1] !== '');
  const search = new URLSearchParams(given).toString();
  return ask<T>('GET', `api/${path}${search ? `?${search}` : ''}`);
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return ask<T>('POST', `api/${path}`, body);
}

export async function signOut(): Promise<void> {
  await ask('DELETE', 'session/');
}

async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(path, {
    method,
    cache: 'no-store',
    credentials: 'same-origin',
    signal: AbortSignal.timeout(10_000),
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }),
  });
  if (answer.status === 401) throw new SignedOut();
  if (answer.status === 503) throw new Unavailable();
  if (!answer.ok) throw new Error(await detail(answer));
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

async function detail(answer: Response): Promise<string> {
  const told = (await answer.json().catch(() => ({}))) as { detail?: string; errors?: { message: string }[] };
  return told.errors?.[0]?.message ?? told.detail ?? `The service answered ${answer.status}.`;
}
