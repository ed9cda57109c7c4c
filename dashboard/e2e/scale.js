// How the pages are with 1,000 apps and 100,000 runs: fills a server, opens each page in Chromium,
// and prints how long it took until the page was there and nothing of it was under way.
//     node e2e/scale.js [APPS] [RUNS]
import { rmSync } from 'node:fs';
import { launch, Window } from './browser.js';
import { folder, Repository, Server, sql, until } from './server.js';

const [apps, runs] = [process.argv[2] ?? 1000, process.argv[3] ?? 100_000].map(Number);
const PAGES = ['/', '/apps', '/apps?q=app-0500', '/routes', '/scripts', '/triggers', '/drift', '/deployments', '/runs', '/runs?status=failed', '/runs?app=app-0500', '/dead-letters', '/metrics', '/metrics?window=30d', '/keys', '/audit', '/instance', '/apps/app-0500'];
const TIMES = 5;

const place = folder();
const files = {};
for (let at = 0; at < apps; at += 1) {
	const name = `app-${String(at).padStart(4, '0')}`;
	files[`apps/${name}/app.yaml`] = `name: ${name}
description: One of many.
routes:
  - {path: /, script: scripts/a.rhai}
  - {path: "/items/{id}", methods: [GET, POST], script: scripts/a.rhai}
triggers:
  - {name: hourly, kind: cron, script: scripts/b.rhai, schedule: "0 ${at % 60} * * * *"}
`;
	files[`apps/${name}/scripts/a.rhai`] = `#{ app: "${name}" }\n`;
	files[`apps/${name}/scripts/b.rhai`] = `log::info("${name}")\n`;
}
const repository = new Repository(`${place}/repository`, files);
const server = await Server.start([repository.path]);
const browser = await launch();
try {
	await until('the apps', async () => (await server.api('GET', '/overview')).apps === apps, 120_000);
	// Spread over a day; one in a hundred failed.
	sql(server, `
INSERT INTO runs
SELECT gen_random_uuid(), a.id, a.name, 'scripts/a.rhai', 'http', NULL, '/', repeat('0', 40), 1,
    CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'ok' END, now() - n * interval '1 second' * 86400 / ${runs}, 1.5, 0.1, 100, 4096,
    CASE WHEN n % 100 = 0 THEN '{"kind": "script", "message": "no", "script": "scripts/a.rhai", "line": 1, "column": 1}'::json END,
    '[]', 0, NULL, '{}'
FROM generate_series(1, ${runs}) n
JOIN (SELECT id, name, row_number() OVER (ORDER BY name) - 1 AS at FROM apps) a ON a.at = n % ${apps};
INSERT INTO run_counts
SELECT a.id, date_trunc('minute', now()) - m * interval '1 minute', 'http', s.status, s.n, s.n * 1500,
    (SELECT array_agg(CASE WHEN i = 8 THEN s.n ELSE 0 END) FROM generate_series(1, 24) i)
FROM apps a, generate_series(0, 1439, 15) m, (VALUES ('ok', 99), ('failed', 1)) s (status, n)
ON CONFLICT DO NOTHING;
ANALYZE`);
	const window = await Window.open(browser, server);
	await window.signIn();
	await window.settled();
	console.log(`${apps} apps, ${runs} runs; median of ${TIMES} openings\n\n| page | ms | requests | kB |\n|---|---|---|---|`);
	for (const path of PAGES) {
		const took = [];
		let asked = 0;
		let bytes = 0;
		const count = async (response) => {
			if (!response.url().includes('/api/v1/admin/') || response.url().includes('/events')) return;
			asked += 1;
			bytes += (await response.body().catch(() => '')).length;
		};
		window.page.on('response', count);
		for (let at = 0; at < TIMES; at += 1) {
			const began = performance.now();
			await window.show(path);
			took.push(performance.now() - began);
		}
		window.page.off('response', count);
		took.sort((one, other) => one - other);
		console.log(`| ${path} | ${Math.round(took[Math.floor(TIMES / 2)])} | ${Math.round(asked / TIMES)} | ${Math.round(bytes / TIMES / 1000)} |`);
	}
	if (process.env.E2E_LOG) console.log(server.log());
	window.assertQuiet('any page');
	await window.picture('scale-overview');
} finally {
	await browser.close();
	await server.stop();
	rmSync(place, { recursive: true, force: true });
}
