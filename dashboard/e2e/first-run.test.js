// An empty hosted repository: the first page says how to push, and turns into the overview.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { launch, Window } from './browser.js';
import { FILES } from './example.js';
import { folder, Repository, Server } from './server.js';

test('the first push turns the first page into the overview', async (t) => {
	const place = folder();
	const [server, browser] = await Promise.all([Server.start([]), launch()]);
	t.after(async () => {
		await browser.close();
		await server.stop();
		rmSync(place, { recursive: true, force: true });
	});
	const window = await Window.open(browser, server);
	await window.signIn();
	const line = await window.page.getByText(/^git remote add/).innerText();
	assert.equal(line, `git remote add picloud ${server.url}/git/default.git`);
	await window.page.getByText('Live', { exact: true }).waitFor();
	await window.assertAccessible('the first page');
	await window.picture('first-run');
	const repository = new Repository(`${place}/repository`, FILES);
	const remote = `${server.url}/git/default.git`.replace('http://', `http://x:${server.key}@`);
	repository.git('push', '--quiet', remote, 'HEAD:main');
	await window.page.getByRole('heading', { name: 'Last deployments' }).waitFor();
	await window.page.getByRole('link', { name: 'shop', exact: true }).waitFor();
	window.assertQuiet('the first page');
});
