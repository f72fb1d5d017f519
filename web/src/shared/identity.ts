// Whose inbox it is: tabs share a stream with those of the same person only.

import type { Api } from './api.js';

/** The token's `sub`, or the person that the service finds for a cookie. Throws Problem. */
export async function identify(api: Api): Promise<string> {
  const token = await api.credentials.token();
  if (token !== null) return subject(token) ?? token;
  return (await api.json<{ recipient: string }>('GET', 'me/')).recipient;
}

/** Of a JWT (RFC 7519), unverified: that is the service's to do. */
function subject(token: string): string | null {
  try {
    const bytes = atob((token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/'));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
    return typeof claims.sub === 'string' ? claims.sub : null;
  } catch {
    return null;
  }
}
