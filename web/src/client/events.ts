// The stream as an iterable: each event once, in order, over all reconnects.

import type { StreamEvent, StreamOptions } from '../public/tocsin-client.js';
import { type Api, Problem } from '../shared/api.js';
import { Stream } from '../shared/stream.js';

/** Throws Problem when the credentials are refused. */
export async function* events(api: Api, { lastEventId = '', signal }: StreamOptions): AsyncGenerator<StreamEvent> {
  const closing = new AbortController();
  const close = () => closing.abort();
  let waiting: StreamEvent[] = [];
  let refused = false;
  let wake = () => {};
  const stream = new Stream(api, lastEventId, {
    check: async () => {},
    events: (found) => {
      waiting.push(...found.map(({ event, id, data }) => ({ event, id, data: JSON.parse(data || '{}') }) as StreamEvent));
      wake();
    },
    link: (link) => {
      refused = link === 'signed-out';
      wake();
    },
  });
  signal?.addEventListener('abort', close);
  closing.signal.addEventListener('abort', () => wake());
  if (signal?.aborted) return;
  const watch = setInterval(() => stream.watch(), 1_000);
  void stream.run(closing.signal);
  try {
    while (!closing.signal.aborted) {
      const ready = waiting;
      waiting = [];
      yield* ready;
      if (refused) throw new Problem(401, 'The token was refused or has expired, and getToken gives no other.');
      if (waiting.length === 0 && !closing.signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    clearInterval(watch);
    signal?.removeEventListener('abort', close);
    close();
  }
}
