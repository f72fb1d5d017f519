// No-op jobs of graphile-worker, with the batching that its page on performance advises: a local queue of 500, 24 jobs at
// once, completed in batches. {"count"}: adds that many in one call while the worker runs, and replies with the seconds
// until no job is left. `graphile_worker.mjs URL`.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Logger, makeWorkerUtils, run } from "graphile-worker";

const require = createRequire(import.meta.url);
const preset = {
	worker: {
		connectionString: process.argv[2],
		concurrentJobs: 24,
		maxPoolSize: 25,
		localQueue: { size: 500 },
		completeJobBatchDelay: 0,
		failJobBatchDelay: 0,
		logger: new Logger(() => () => {}),
	},
};
const LEFT = "select exists (select from graphile_worker._private_jobs) as jobs";

const utils = await makeWorkerUtils({ preset });
await utils.migrate();
await run({ preset, taskList: { deliver: () => {} } });
const { version } = require("graphile-worker/package.json");
console.log(JSON.stringify({ "graphile-worker": version, node: process.versions.node }));
for await (const line of createInterface({ input: process.stdin })) {
	const { count } = JSON.parse(line);
	await utils.addJobs(Array.from({ length: count }, (_, id) => ({ identifier: "deliver", payload: { id } })));
	const started = performance.now();
	while ((await utils.withPgClient((client) => client.query(LEFT))).rows[0].jobs) await sleep(5);
	console.log(JSON.stringify((performance.now() - started) / 1000));
}
