// Calls of /ops/api/, relative to the page, so that it works behind any prefix.

export class SignedOut extends Error {}

/** The service responds, but its database does not. */
export class Unavailable extends Error {}

export async function get<T>(path: string, query: Record<string, string | null> = {}): Promise<T> {
  const given = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== null && pair[1] !== '');
  const search = new URLSearchParams(given).toString();
  return request<T>('GET', `api/${path}${search ? `?${search}` : ''}`);
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return request<T>('POST', `api/${path}`, body);
}

export async function remove(path: string): Promise<void> {
  await request('DELETE', `api/${path}`);
}

export async function signOut(): Promise<void> {
  await request('DELETE', 'session/');
}

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await fetch(path, {
    method,
    cache: 'no-store',
    credentials: 'same-origin',
    signal: AbortSignal.timeout(10_000),
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }),
  });
  if (response.status === 401) throw new SignedOut();
  if (response.status === 503) throw new Unavailable();
  if (!response.ok) throw new Error(await detail(response));
  return (response.status === 204 ? undefined : await response.json()) as T;
}

async function detail(response: Response): Promise<string> {
  const problem = (await response.json().catch(() => ({}))) as { detail?: string; errors?: { message: string }[] };
  return problem.errors?.[0]?.message ?? problem.detail ?? `The service responded with ${response.status}.`;
}
