// What Lighthouse says of the sign-in page and the overview, and how soon they are painted:
//     node e2e/lighthouse.js [REPORTS]
// Ends with 1 where a figure is worse than it may be. REPORTS: a folder for the whole reports.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import lighthouse, { desktopConfig } from 'lighthouse';
import { chromium } from 'playwright-core';
import { ARGUMENTS, executable } from './browser.js';
import { FILES } from './example.js';
import { folder, Repository, Server, until } from './server.js';

const LEAST = 0.95;
const MOST_LCP = 1_000;
const CATEGORIES = ['performance', 'accessibility', 'best-practices'];

/** A port that nothing listens on. */
async function freePort() {
	const probe = createServer();
	await new Promise((done) => probe.listen(0, '127.0.0.1', done));
	const { port } = probe.address();
	await new Promise((done) => probe.close(done));
	return port;
}

const place = folder();
const repository = new Repository(`${place}/repository`, FILES);
const server = await Server.start([repository.path]);
const port = await freePort();
const window = await chromium.launchPersistentContext(`${place}/profile`, {
	executablePath: executable(),
	args: [...ARGUMENTS, `--remote-debugging-port=${port}`]
});
let failed = false;
try {
	await until('the shop', async () => (await fetch(`${server.url}/apps/shop/`)).status === 500);
	for (let at = 0; at < 20; at += 1) await fetch(`${server.url}/apps/hello/`);
	console.log('| page | performance | accessibility | best practices | LCP ms | blocked ms |\n|---|---|---|---|---|---|');
	for (const [name, path] of [['sign-in', '/dashboard/sign-in'], ['overview', '/dashboard/']]) {
		if (name === 'overview') {
			const answer = await window.request.post(`${server.url}/api/v1/admin/session`, { data: { key: server.key } });
			if (answer.status() !== 201) throw new Error(`no session: ${answer.status()}`);
		}
		// On loopback, as fast as it is: a throttled network is not what is measured here.
		const settings = { ...desktopConfig.settings, throttlingMethod: 'provided', onlyCategories: CATEGORIES, disableStorageReset: true };
		const { lhr, report } = await lighthouse(server.url + path, { port, output: 'html', logLevel: 'error' }, { ...desktopConfig, settings });
		if (process.argv[2]) {
			mkdirSync(process.argv[2], { recursive: true });
			writeFileSync(join(process.argv[2], `${name}.html`), report);
		}
		const scores = CATEGORIES.map((category) => lhr.categories[category].score ?? 0);
		const value = (audit) => Math.round(lhr.audits[audit].numericValue ?? Infinity);
		const lcp = value('largest-contentful-paint');
		console.log(`| ${name} | ${scores.map((score) => Math.round(score * 100)).join(' | ')} | ${lcp} | ${value('total-blocking-time')} |`);
		if (scores.some((score) => score < LEAST) || lcp > MOST_LCP || !lhr.finalDisplayedUrl.endsWith(path)) {
			failed = true;
			for (const category of CATEGORIES) {
				for (const { id, weight } of lhr.categories[category].auditRefs) {
					const audit = lhr.audits[id];
					if (weight > 0 && audit.score !== null && audit.score < 0.9) console.log(`  ${category}: ${audit.title} (${audit.displayValue ?? audit.score})`);
				}
			}
		}
	}
} finally {
	await window.close();
	await server.stop();
	rmSync(place, { recursive: true, force: true });
}
process.exitCode = failed ? 1 : 0;
