// Server-sent events from a fetched body (WHATWG HTML, section 9.2), as Tocsin writes them: LF, UTF-8, data on one line.

export interface ServerEvent {
  readonly event: string;
  readonly id: string;
  readonly data: string;
  /** Milliseconds until a reconnect, if the server sets it. */
  readonly retry: string;
}

/** Yields the events of each chunk; a heartbeat has an empty `event`. */
export async function* read(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent[]> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split('\n\n');
    text = blocks.pop() ?? '';
    yield blocks.map(fields);
  }
}

function fields(block: string): ServerEvent {
  const found = { event: '', id: '', data: '', retry: '' };
  for (const line of block.split('\n')) {
    const [, name, value] = /^(event|id|data|retry): ?(.*)$/.exec(line) ?? [];
    if (name !== undefined) found[name as keyof typeof found] = value ?? '';
  }
  return found;
}
