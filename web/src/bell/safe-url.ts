// Allowed targets of links: pages, never scripts.

/** The absolute URL, or null if it is neither http, https nor relative to the page. */
export function safeUrl(text: string | null, also = ''): string | null {
  try {
    const url = new URL(text || '?', document.baseURI);
    return text && ['http:', 'https:', also].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
