// The person of an inbox: tabs share a stream only with tabs of the same person.

import type { Api } from './api.js';

/** The token's `sub`, or the person that the service finds for a cookie. Throws Problem. */
export async function identify(api: Api): Promise<string> {
  const token = await api.credentials.token();
  if (token !== null) return subject(token) ?? token;
  return (await api.json<{ recipient: string }>('GET', 'me/')).recipient;
}

/** Reads a JWT (RFC 7519) without verifying it, which the service does. */
function subject(token: string): string | null {
  try {
    const bytes = atob((token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/'));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
    return typeof claims.sub === 'string' ? claims.sub : null;
  } catch {
    return null;
  }
}
