// The operations page: problems with their start, severity and cure; channels, processes, dead letters, search.

import { get, signOut } from '../ops/api.js';
import { showChannels } from '../ops/channels.js';
import { DeadLetters } from '../ops/dead_letters.js';
import { byId } from '../ops/dom.js';
import { showFanOuts } from '../ops/fan_outs.js';
import { Live } from '../ops/live.js';
import { showProblems } from '../ops/problems.js';
import { showProcesses } from '../ops/processes.js';
import { showReasons } from '../ops/reasons.js';
import { startSearch } from '../ops/search.js';
import { Suppressions } from '../ops/suppressions.js';
import type { Overview } from '../ops/types.js';

const live = new Live(read);
const dead = new DeadLetters(() => live.now());
const suppressions = new Suppressions();

async function read(): Promise<string> {
  const chosen = document.querySelector<HTMLInputElement>('input[name=window]:checked');
  const overview = await get<Overview>('overview/', { window: chosen?.value ?? 'hour' });
  const now = new Date(overview.at);
  showProblems(overview, now);
  showChannels(overview, now);
  showReasons(overview);
  showFanOuts(overview, now);
  showProcesses(overview, now);
  suppressions.follow(overview.mail_events);
  dead.follow(overview.channels.reduce((sum, each) => sum + each.total.failed, 0));
  return overview.at;
}

byId('window').addEventListener('change', () => live.now());
byId('sign-out').addEventListener('click', () => {
  void signOut()
    .catch(() => undefined)
    .then(() => location.replace('./'));
});
startSearch();
live.now();
