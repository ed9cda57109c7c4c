// One queue under test: node queue.mjs QUEUE DATABASE_URL JOBS SAMPLES, where QUEUE is `graphile`,
// `graphile-batched`, `pg-boss-10` or `pg-boss-100`. Prints one line of JSON: jobs added in bulk and
// jobs drained a second, and the milliseconds from just before an add to the handler's first line,
// the worker being idle.
import pg from "pg";

const [kind, url, jobCount, sampleCount] = process.argv.slice(2);
const jobs = Number(jobCount);
const samples = Number(sampleCount);
/** Handlers at the same time. */
const CONCURRENCY = 16;
/** Jobs of one statement when they are added. */
const CHUNK = 1000;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What the handler does: nothing, and tells that it began. */
let began = () => {};
const handler = (data) => began(data);

async function graphile(batched) {
	const { run, makeWorkerUtils, Logger } = await import("graphile-worker");
	const pool = new pg.Pool({ connectionString: url, max: CONCURRENCY + 4 });
	const logger = new Logger(() => () => {});
	const utils = await makeWorkerUtils({ pgPool: pool, logger });
	await utils.migrate();
	// Its documentation's fast settings: jobs fetched ahead, completions gathered.
	const fast = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
	let runner;
	return {
		addMany: (all) => utils.addJobs(all.map((payload) => ({ identifier: "nothing", payload }))),
		addOne: (payload) => utils.addJob("nothing", payload),
		left: async () => {
			const { rows } = await pool.query("SELECT count(*)::int AS left FROM graphile_worker._private_jobs");
			return rows[0].left;
		},
		start: async () => {
			const worker = { concurrentJobs: CONCURRENCY, maxPoolSize: CONCURRENCY + 4, ...(batched ? fast : {}) };
			const taskList = { nothing: async (payload) => handler(payload) };
			runner = await run({ pgPool: pool, logger, noHandleSignals: true, preset: { worker }, taskList });
		},
		stop: () => runner.stop(),
	};
}

async function pgBoss(size) {
	const { PgBoss } = await import("pg-boss");
	const boss = new PgBoss({ connectionString: url, max: CONCURRENCY + 4, useListenNotify: true });
	boss.on("error", (error) => {
		throw error;
	});
	await boss.start();
	await boss.createQueue("nothing", { notify: true });
	const asking = new pg.Pool({ connectionString: url, max: 1 });
	const settings = { batchSize: size, localConcurrency: CONCURRENCY, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
	return {
		addMany: (all) => boss.insert("nothing", all.map((data) => ({ data }))),
		addOne: (data) => boss.send("nothing", data),
		left: async () => {
			const unfinished = "SELECT count(*)::int AS left FROM pgboss.job WHERE name = 'nothing' AND state < 'completed'";
			return (await asking.query(unfinished)).rows[0].left;
		},
		start: () => boss.work("nothing", settings, async (batch) => batch.forEach(({ data }) => handler(data))),
		stop: () => boss.stop({ graceful: false }),
	};
}

const queues = {
	graphile: () => graphile(false),
	"graphile-batched": () => graphile(true),
	"pg-boss-10": () => pgBoss(10),
	"pg-boss-100": () => pgBoss(100),
};
const queue = await queues[kind]();

const addingSince = performance.now();
for (let first = 0; first < jobs; first += CHUNK) {
	const size = Math.min(CHUNK, jobs - first);
	await queue.addMany(Array.from({ length: size }, (_, place) => ({ n: first + place })));
}
const enqueue = (jobs * 1000) / (performance.now() - addingSince);

// From the first handler's beginning until the database holds none that is unfinished.
let drainingSince = 0;
let handled = 0;
const allHandled = new Promise((resolve) => {
	began = () => {
		drainingSince ||= performance.now();
		handled += 1;
		if (handled === jobs) resolve();
	};
});
await queue.start();
await allHandled;
while ((await queue.left()) > 0) await pause(1);
const drain = (jobs * 1000) / (performance.now() - drainingSince);

const waits = [];
await pause(1500);
for (let sample = 0; sample < samples; sample += 1) {
	await pause(10 + Math.random() * 20);
	const seen = new Promise((resolve) => {
		began = ({ sample: of }) => of === sample && resolve(performance.now());
	});
	const before = performance.now();
	await queue.addOne({ sample });
	waits.push((await seen) - before);
}
console.log(JSON.stringify({ enqueue, drain, waits }));
await queue.stop();
process.exit(0);
