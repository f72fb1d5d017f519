// The client without looks, for browsers and servers.

import { Client } from '../client/client.js';
import type { ClientOptions } from '../public/tocsin-client.js';

export function createClient(options: ClientOptions): Client {
  return new Client(options);
}

export { Problem } from '../shared/api.js';
