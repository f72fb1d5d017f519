// No-op jobs of pg-boss, fetched and completed in batches of 500 by several loops: `work()` would wait for half a second
// after a batch. {"count", "loops"}: inserts that many, fetches until none is left, and replies with the seconds.
// `pg_boss.mjs URL`.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import PgBoss from "pg-boss";

const QUEUE = "deliver";
const BATCH = 500;
const require = createRequire(import.meta.url);

const boss = new PgBoss({ connectionString: process.argv[2], supervise: false, schedule: false });
await boss.start();
await boss.createQueue(QUEUE);
console.log(JSON.stringify({ "pg-boss": require("pg-boss/package.json").version }));

const insert = async (count) => {
	await boss.clearStorage();
	for (let first = 0; first < count; first += 5000) {
		const length = Math.min(5000, count - first);
		await boss.insert(Array.from({ length }, (_, number) => ({ name: QUEUE, data: { id: first + number } })));
	}
	await boss.getDb().executeSql("analyze pgboss.job");
};

const work = async () => {
	for (;;) {
		const jobs = await boss.fetch(QUEUE, { batchSize: BATCH });
		if (!jobs.length) return;
		await boss.complete(QUEUE, jobs.map((job) => job.id));
	}
};

for await (const line of createInterface({ input: process.stdin })) {
	const { count, loops } = JSON.parse(line);
	await insert(count);
	const started = performance.now();
	await Promise.all(Array.from({ length: loops }, work));
	console.log(JSON.stringify((performance.now() - started) / 1000));
}
