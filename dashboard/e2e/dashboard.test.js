// The dashboard as people use it: one server, one local repository, each test a thing one does.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { launch, Window } from './browser.js';
import { FILES, SHOP } from './example.js';
import { folder, Repository, Server, until } from './server.js';

const PAGES = [
	['Overview', '/'],
	['Apps', '/apps'],
	['Routes', '/routes'],
	['Scripts', '/scripts'],
	['Triggers', '/triggers'],
	['Drift', '/drift'],
	['Deployments', '/deployments'],
	['Runs', '/runs'],
	['Dead letters', '/dead-letters'],
	['Metrics', '/metrics'],
	['Keys', '/keys'],
	['Audit', '/audit'],
	['Instance', '/instance']
];

let browser;
let server;
let repository;
let place;
let owner;

/** The newest deployment, once it is of this commit and ended. */
const deployed = (commit) =>
	until(`the deployment of ${commit}`, async () => {
		const { items } = await server.api('GET', '/deployments?limit=5');
		return items.find((it) => it.commit === commit && it.status !== 'applying');
	});

before(async () => {
	place = folder();
	repository = new Repository(`${place}/repository`, FILES);
	[server, browser] = await Promise.all([Server.start([repository.path]), launch()]);
	await until('the shop', async () => (await fetch(`${server.url}/apps/shop/`)).status === 500);
	await fetch(`${server.url}/apps/shop/orders/7`, { method: 'POST' });
	await fetch(`${server.url}/apps/hello/`);
	owner = await Window.open(browser, server);
	await owner.signIn();
});

after(async () => {
	await browser?.close();
	await server?.stop();
	rmSync(place, { recursive: true, force: true });
});

test('a wrong key is refused at the field, and the right one leaves nothing in the browser', async () => {
	const window = await Window.open(browser, server);
	const { page } = window;
	await page.goto('/dashboard/runs?app=shop');
	await page.waitForURL(/sign-in\?next=/, { waitUntil: 'commit' });
	const key = page.getByLabel('Key');
	await key.waitFor();
	await page.waitForLoadState('networkidle');
	// Whether one is signed in is asked without a refusal.
	window.assertQuiet('before anybody signed in');
	await key.fill('pic_wrong');
	await page.getByRole('button', { name: 'Sign in' }).click();
	await page.getByText('This key is not known').waitFor();
	assert.equal(await key.getAttribute('aria-invalid'), 'true');
	assert.equal(await key.getAttribute('aria-describedby'), 'key-wrong');
	await window.assertAccessible('the sign-in page');
	await window.picture('sign-in');
	await key.fill(server.key);
	await page.keyboard.press('Enter');
	await page.waitForURL(/\/dashboard\/runs\?app=shop$/, { waitUntil: 'commit' });
	await window.settled();
	const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
	assert.ok(!kept.includes('pic_') && !kept.includes('ses_'), kept);
	const cookies = await window.context.cookies(`${server.url}/api/v1/admin`);
	assert.equal(cookies.length, 1);
	assert.ok(cookies[0].httpOnly && cookies[0].sameSite === 'Strict', JSON.stringify(cookies));
	await page.getByRole('button', { name: 'Sign out' }).click();
	await page.waitForURL(/sign-in$/, { waitUntil: 'commit' });
	await page.goto('/dashboard/keys');
	await page.waitForURL(/sign-in\?next=%2Fkeys$/, { waitUntil: 'commit' });
	await window.close();
});

test('each page opens by its address, light and dark, wide and narrow, without a complaint', async () => {
	const run = (await server.api('GET', '/runs?status=failed&kind=http')).items[0];
	const deployment = (await server.api('GET', '/deployments')).items[0];
	const deeper = [
		['shop', '/apps/shop'],
		['shop', '/apps/shop/routes'],
		['shop', '/apps/shop/scripts/scripts/price.rhai'],
		['shop', '/apps/shop/triggers'],
		['shop', '/apps/shop/environment'],
		['shop', '/apps/shop/drift'],
		['shop', '/apps/shop/deployments'],
		['shop', '/apps/shop/runs'],
		['GET /', `/runs/${run.id}`],
		['feat: the first apps', `/deployments/${deployment.id}`]
	];
	const windows = [
		['wide', await Window.open(browser, server)],
		['narrow-dark', await Window.open(browser, server, { narrow: true, dark: true })]
	];
	for (const [look, window] of windows) {
		await window.signIn();
		for (const [name, path] of [...PAGES, ...deeper]) {
			await window.show(path);
			assert.equal(await window.page.locator('main h1').first().innerText(), name, path);
			await window.assertAccessible(`${path}, ${look}`);
			window.assertQuiet(`${path}, ${look}`);
			await window.picture(`${look}${path.replaceAll('/', '-').replace(/-[0-9a-f-]{36}/, '')}`);
		}
		await window.close();
	}
});

test('pages are files of the server alone, compressed, kept, and framed by nobody', async () => {
	const page = await fetch(`${server.url}/dashboard/`, { headers: { 'accept-encoding': 'br' } });
	const policy = page.headers.get('content-security-policy') ?? '';
	assert.match(policy, /script-src 'self'(;|$)/);
	assert.match(policy, /frame-ancestors 'none'/);
	assert.doesNotMatch(policy, /unsafe/);
	assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
	const html = await page.text();
	assert.doesNotMatch(html, /<script>|<style|https?:/);
	const files = [...html.matchAll(/(?:src|href)="(\/dashboard\/_app\/[^"]+)"/g)].map((found) => found[1]);
	assert.ok(files.length > 3, html);
	for (const file of files) {
		const answer = await fetch(server.url + file, { headers: { 'accept-encoding': 'gzip' } });
		assert.equal(answer.status, 200, file);
		assert.match(answer.headers.get('cache-control'), /immutable/, file);
	}
	const home = await fetch(`${server.url}/dashboard/`);
	const again = await fetch(`${server.url}/dashboard/`, { headers: { 'if-none-match': home.headers.get('etag') } });
	assert.equal(again.status, 304);
	assert.equal((await fetch(`${server.url}/dashboard/_app/immutable/gone.js`)).status, 404);
	assert.equal((await fetch(`${server.url}/dashboard/apps/any/where`)).headers.get('content-type'), 'text/html; charset=utf-8');
	assert.equal((await fetch(`${server.url}/dashboard/`, { method: 'POST' })).status, 405);
	assert.equal((await fetch(`${server.url}/dashboard`, { redirect: 'manual' })).headers.get('location'), '/dashboard/');
});

test('the first page is light', async () => {
	const window = await Window.open(browser, server);
	const answer = await window.context.request.post('/api/v1/admin/session', { data: { key: server.key } });
	assert.equal(answer.status(), 201);
	const scripts = [];
	window.page.on('response', (response) => {
		if (response.url().endsWith('.js')) scripts.push(response.request().sizes());
	});
	await window.show('/');
	await window.page.getByRole('link', { name: 'shop', exact: true }).first().waitFor();
	const bytes = (await Promise.all(scripts)).reduce((sum, sizes) => sum + sizes.responseBodySize, 0);
	assert.ok(scripts.length > 5 && bytes < 200_000, `${bytes} bytes of script in ${scripts.length} files`);
	assert.ok(bytes > 10_000, `${bytes} bytes of script are too few to be true`);
	await window.close();
});

test('a commit shows by itself', async () => {
	const { page } = owner;
	await owner.show('/');
	await page.getByText('Live', { exact: true }).waitFor();
	const commit = repository.commit('feat: greet the moon', { 'apps/hello/scripts/hello.rhai': '#{ hello: "moon" }\n' });
	await page.getByRole('link', { name: commit.slice(0, 7) }).first().waitFor();
	await page.getByText('feat: greet the moon').first().waitFor();
	await owner.picture('overview');
	owner.assertQuiet('the overview');
});

test('a broken commit is told with its line, and its app stays', async () => {
	const { page } = owner;
	const commit = repository.commit('feat: a mistake', { 'apps/hello/scripts/hello.rhai': 'let x = ;\n' });
	const { id } = await deployed(commit);
	await owner.show(`/deployments/${id}`);
	await page.getByText('apps/hello/scripts/hello.rhai:1:9').waitFor();
	await page.getByText('let x = ;').waitFor();
	await page.getByText('stays as it was').waitFor();
	owner.assertQuiet('a broken deployment');
	await owner.picture('deployment');
	await page.getByRole('link', { name: 'Overview' }).click();
	await page.getByRole('region', { name: 'What needs a look' }).getByText('partial').waitFor();
	await deployed(repository.commit('fix: the mistake', { 'apps/hello/scripts/hello.rhai': '#{ hello: "moon" }\n' }));
});

test('a former commit is made live again, and the source resumed', async () => {
	const { page } = owner;
	const head = repository.commit('feat: greet everybody', { 'apps/hello/scripts/hello.rhai': '#{ hello: "everybody" }\n' });
	await deployed(head);
	const first = repository.git('rev-list', '--max-parents=0', 'HEAD');
	await owner.show('/deployments');
	await page.getByRole('row').filter({ hasText: first.slice(0, 7) }).getByRole('button', { name: 'Roll back' }).click();
	await page.getByText('is live again').waitFor();
	await until('the first commit', async () => (await (await fetch(`${server.url}/apps/hello/`)).json()).hello === 'world');
	await page.getByRole('row').filter({ hasText: first.slice(0, 7) }).getByText('live').first().waitFor();
	await page.getByRole('button', { name: 'Sync' }).waitFor();
	await server.api('POST', '/sources/local/resume');
	await until('the head', async () => (await server.api('GET', '/sources/local')).commit === head);
});

test('a cron trigger is checked as one writes, made, seen as drift, and healed', async () => {
	const { page } = owner;
	await owner.show('/apps/shop/triggers');
	const create = page.getByRole('button', { name: 'Create trigger' });
	await create.click();
	for (const label of ['Name', 'Script', 'Schedule']) {
		const field = page.getByLabel(label, { exact: true });
		assert.equal(await field.getAttribute('aria-invalid'), 'true', label);
		const words = await field.getAttribute('aria-describedby');
		assert.ok((await page.locator(`#${words}`).innerText()).length > 5, label);
	}
	await owner.assertAccessible('a form with wrong fields');
	await page.getByLabel('Name', { exact: true }).fill('nightly');
	await page.getByText('has a trigger nightly already').waitFor();
	await page.getByLabel('Name', { exact: true }).fill('weekdays');
	await page.getByLabel('Script', { exact: true }).selectOption('scripts/tidy.rhai');
	const schedule = page.getByLabel('Schedule', { exact: true });
	await schedule.fill('0 25 * * *');
	await page.locator('#cron-schedule-wrong').getByText('hour').waitFor();
	assert.equal(await schedule.getAttribute('aria-invalid'), 'true');
	await schedule.fill('0 6 * * 1-5');
	await page.getByLabel('Time zone').fill('Europe/Nowhere');
	await page.locator('#cron-timezone-wrong').waitFor();
	await page.getByLabel('Time zone').fill('Europe/Zurich');
	await page.locator('.preview li').nth(4).waitFor();
	assert.match(await page.locator('.preview li').first().innerText(), /06:00:00 \+0[12]:00/);
	await owner.picture('cron-form');
	await page.getByRole('button', { name: 'Propose' }).click();
	const proposal = page.getByRole('dialog', { name: 'Propose the trigger weekdays for shop' });
	await proposal.getByRole('region', { name: 'The patch' }).getByText('weekdays').waitFor();
	assert.equal(await proposal.getByLabel('Branch').inputValue(), 'add-weekdays');
	await owner.assertAccessible('a trigger proposed');
	await owner.picture('proposal');
	await proposal.getByRole('button', { name: 'Commit to the branch' }).click();
	await page.getByText('is on the branch add-weekdays').waitFor();
	assert.match(repository.git('show', 'add-weekdays:apps/shop/app.yaml'), /name: weekdays/);
	assert.ok(!(await server.api('GET', '/apps/shop/triggers')).items.some((trigger) => trigger.name === 'weekdays'));
	await page.getByLabel('Name', { exact: true }).fill('weekdays');
	await page.getByLabel('Schedule').fill('0 6 * * 1-5');
	await page.locator('.preview li').nth(4).waitFor();
	await create.click();
	await page.getByRole('row').filter({ hasText: 'weekdays' }).waitFor();
	await page.getByRole('row').filter({ hasText: 'weekdays' }).getByRole('button', { name: 'Fire now' }).click();
	await page.getByText('weekdays fires now').waitFor();
	await until('its run', async () => (await server.api('GET', '/runs?trigger=weekdays&status=ok')).items.length > 0);

	await owner.page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Drift' }).click();
	const drift = page.getByRole('region', { name: 'Drift of shop' });
	await drift.getByText('weekdays').waitFor();
	await drift.getByText('0 6 * * 1-5').waitFor();
	await owner.assertAccessible('drift');
	await owner.picture('drift');
	await drift.getByRole('button', { name: 'Adopt' }).click();
	const adopt = page.getByRole('dialog', { name: 'Make git declare what is live of shop' });
	await adopt.getByRole('region', { name: 'The patch' }).getByText('weekdays').waitFor();
	await owner.assertAccessible('the patch of what is live');
	await owner.picture('adopt');
	await adopt.getByLabel('Branch').fill('');
	await adopt.getByRole('button', { name: 'Commit to the branch' }).click();
	assert.equal(await adopt.getByLabel('Branch').getAttribute('aria-invalid'), 'true');
	await adopt.getByLabel('Branch').fill('adopt-shop');
	await adopt.getByRole('button', { name: 'Commit to the branch' }).click();
	await page.getByText('is on the branch adopt-shop').waitFor();
	assert.match(repository.git('show', 'adopt-shop:apps/shop/app.yaml'), /name: weekdays/);
	await drift.getByRole('button', { name: 'Heal' }).click();
	await page.getByText('No drift').waitFor();
	const left = await server.api('GET', '/apps/shop/triggers');
	assert.deepEqual(left.items.map((trigger) => trigger.name).sort(), ['nightly', 'ordered']);
	// The browser itself notes each refusal of what was written wrongly above, and nothing else is there.
	owner.forgive(/status of 422/);
	owner.assertQuiet('the cron form and drift');
});

test('a failed run shows its line and its logs, and is found among the others', async () => {
	const { page } = owner;
	const { items } = await server.api('GET', '/runs?status=failed&kind=http');
	await owner.show(`/runs/${items[0].id}`);
	const marked = page.locator('.line.marked');
	await marked.waitFor();
	assert.match(await marked.innerText(), /item\.price \* 1\.077/);
	await page.getByRole('region', { name: 'Log lines' }).getByText('a visitor').waitFor();
	await owner.picture('run');
	await page.getByRole('link', { name: 'Runs', exact: true }).first().click();
	await page.getByLabel('State').selectOption('failed');
	await page.waitForURL(/status=failed/);
	await page.getByRole('row').filter({ hasText: 'the till is closed' }).first().waitFor();
	owner.assertQuiet('runs');
});

test('a deployment shows its scripts line by line', async () => {
	const { page } = owner;
	const { items } = await server.api('GET', '/deployments?app=hello&brief=true');
	const moon = items.find((it) => it.message.startsWith('feat: greet the moon'));
	assert.deepEqual([moon.changes, moon.counts.changes], [[], 1]);
	await owner.show(`/deployments/${moon.id}`);
	const diff = page.getByRole('region', { name: 'What changed in scripts/hello.rhai of hello' });
	assert.match(await diff.getByRole('row').filter({ hasText: 'removed' }).innerText(), /world/);
	assert.match(await diff.getByRole('row').filter({ hasText: 'added' }).innerText(), /moon/);
	await owner.assertAccessible('a deployment with scripts');
	await owner.picture('script-diff');
	owner.assertQuiet('a deployment with scripts');
});

test('what led to a run and what it led to are a graph, and a list', async () => {
	const { page } = owner;
	const [effect] = (await server.api('GET', '/runs?trigger=ordered')).items;
	assert.ok(effect.cause);
	await owner.show(`/runs/${effect.id}`);
	const graph = page.getByRole('region', { name: 'Cause and effect' });
	await graph.getByRole('group', { name: 'What led to this run, and what it led to' }).waitFor();
	await owner.assertAccessible('a run with a cause');
	await owner.picture('cause');
	await graph.getByRole('button', { name: 'As a list' }).click();
	await graph.getByRole('listitem').first().getByRole('link').click();
	await page.waitForURL(new RegExp(`/runs/${effect.cause}$`));
	await graph.getByRole('link', { name: /^ordered, kv/ }).first().click();
	await page.waitForURL((url) => !url.pathname.endsWith(effect.cause));
	owner.assertQuiet('causes and effects');
});

test('a run is replayed', async () => {
	const { page } = owner;
	const { items } = await server.api('GET', '/runs?status=failed&kind=http');
	await owner.show(`/runs/${items[0].id}`);
	const all = async () => (await server.api('GET', '/runs?app=shop&limit=200')).items.length;
	const before = await all();
	await page.getByRole('button', { name: 'Replay' }).click();
	await until('one more run', async () => (await all()) > before);
	owner.assertQuiet('a replay');
});

test('a dead letter is sent again', async () => {
	const { page } = owner;
	await until('a dead letter', async () => (await server.api('GET', '/dead-letters')).items.length > 0);
	await owner.show('/dead-letters');
	const letter = page.getByRole('region', { name: 'Dead letter of ordered' });
	await letter.getByText('the till is closed').waitFor();
	await owner.assertAccessible('dead letters');
	await letter.getByRole('button', { name: 'Redrive' }).click();
	await page.getByText('ordered is tried again').waitFor();
	owner.assertQuiet('dead letters');
});

test('several dead letters are sent again and thrown away at once', async () => {
	const { page } = owner;
	const letters = async () => (await server.api('GET', '/dead-letters?limit=200')).items.length;
	for (const order of [11, 12, 13]) await fetch(`${server.url}/apps/shop/orders/${order}`, { method: 'POST' });
	await until('four dead letters', async () => (await letters()) >= 4);
	await owner.show('/dead-letters');
	await page.getByRole('checkbox', { name: 'Choose ordered' }).first().check();
	await page.getByRole('checkbox', { name: 'Choose ordered' }).nth(1).check();
	await owner.assertAccessible('dead letters, two chosen');
	await page.getByRole('button', { name: 'Redrive chosen' }).click();
	await page.getByText('2 events tried again').waitFor();
	await until('all of them back', async () => (await letters()) >= 4);
	await owner.show('/dead-letters');
	await page.getByRole('button', { name: 'Discard all' }).click();
	await page.getByRole('dialog').getByRole('button', { name: 'Discard all' }).click();
	await page.getByText('No dead letters').waitFor();
	assert.equal(await letters(), 0);
	owner.assertQuiet('many dead letters');
});

test('who may only look sees nothing to press', async () => {
	const { key } = await server.api('POST', '/keys', { name: 'viewer', scopes: ['app:read', 'run:read'] });
	const window = await Window.open(browser, server);
	await window.signIn(key);
	await window.settled();
	const side = window.page.getByRole('navigation', { name: 'Pages' });
	for (const name of ['Keys', 'Audit']) assert.equal(await side.getByRole('link', { name }).count(), 0, name);
	const forbidden = /^(Create trigger|Heal|Adopt|Roll back|Sync|Replay|Redrive|Fire now|Suspend|Resume|Approve|Delete|Discard|Discard all|Redrive all|Disable|Revoke)$/;
	const run = (await server.api('GET', '/runs?status=failed')).items[0];
	for (const path of ['/', '/triggers', '/apps/shop/triggers', '/deployments', '/drift', '/dead-letters', `/runs/${run.id}`]) {
		await window.show(path);
		assert.equal(await window.page.getByRole('button', { name: forbidden }).count(), 0, path);
	}
	await window.show('/keys');
	await window.page.getByText('Not with this key').first().waitFor();
	await window.close();
});

test('the key of one app sees that app alone', async () => {
	const { key } = await server.api('POST', '/keys', { name: 'hello-only', scopes: ['app:read', 'run:read', 'trigger:write'], app: 'hello' });
	const window = await Window.open(browser, server);
	await window.signIn(key);
	await window.show('/apps');
	assert.equal(await window.page.getByRole('link', { name: 'hello', exact: true }).count(), 1);
	assert.equal(await window.page.getByRole('link', { name: 'shop', exact: true }).count(), 0);
	await window.show('/apps/hello/triggers');
	await window.page.getByRole('button', { name: 'Create trigger' }).waitFor();
	window.assertQuiet('the pages of one app');
	await window.close();
});

test('all of it goes by keyboard', async () => {
	const { page } = owner;
	await owner.show('/');
	await page.keyboard.press('g');
	await page.keyboard.press('a');
	await page.waitForURL(/\/dashboard\/apps$/);
	await page.keyboard.press('/');
	await page.getByRole('combobox', { name: 'Search pages and apps' }).fill('shop');
	await page.getByRole('option', { name: 'shop App' }).waitFor();
	await owner.assertAccessible('the search');
	await page.keyboard.press('Enter');
	await page.waitForURL(/\/dashboard\/apps\/shop$/);
	await page.keyboard.press('?');
	await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
	await owner.assertAccessible('the list of keys');
	await page.keyboard.press('Escape');
	await page.getByRole('tab', { name: 'Summary' }).focus();
	await page.keyboard.press('ArrowRight');
	await page.waitForURL(/\/shop\/routes$/);
	assert.equal(await page.getByRole('tab', { name: 'Routes' }).evaluate((tab) => tab === document.activeElement), true);
});

test('a key is made, shown once, and revoked', async () => {
	const { page } = owner;
	await owner.show('/keys');
	await page.getByRole('button', { name: 'Create key' }).click();
	assert.equal(await page.getByLabel('Name', { exact: true }).getAttribute('aria-invalid'), 'true');
	await page.getByLabel('Name', { exact: true }).fill('robot');
	await page.getByRole('button', { name: 'Create key' }).click();
	const secret = await page.locator('.secret code').innerText();
	const use = () => fetch(`${server.url}/api/v1/admin/me`, { headers: { authorization: `Bearer ${secret}` } });
	assert.equal((await use()).status, 200);
	await page.getByRole('row').filter({ hasText: 'robot' }).getByRole('button', { name: 'Revoke' }).click();
	await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
	await until('the end of the key', async () => (await use()).status === 401, 5_000);
	await owner.show('/audit');
	await page.getByText('key.revoke').first().waitFor();
	owner.assertQuiet('keys');
});

test('a page whose server went away and came back catches up', async () => {
	const window = await Window.open(browser, server);
	await window.signIn();
	await window.show('/deployments');
	await window.page.getByText('Live', { exact: true }).waitFor();
	await window.context.setOffline(true);
	await window.page.evaluate(() => globalThis.dispatchEvent(new Event('offline')));
	const commit = repository.commit('feat: while nobody looked', { 'apps/shop/app.yaml': SHOP.replace('or tries to', 'and coffee') });
	await deployed(commit);
	await window.context.setOffline(false);
	await window.page.getByRole('link', { name: commit.slice(0, 7) }).waitFor();
	await window.close();
});
