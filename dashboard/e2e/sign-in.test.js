// Sign-in by a real OpenID Connect provider, and programs that are let in from the dashboard.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import Provider from 'oidc-provider';
import { launch, Window } from './browser.js';
import { FILES } from './example.js';
import { folder, program, Repository, Server, until } from './server.js';

/** Who there is, with their groups; they may change. */
const PEOPLE = { ada: ['platform'], grace: ['staff'], mallory: ['guests'] };
const SECRET = 'the provider and the server know this';

let browser;
let server;
let place;
let provider;

before(async () => {
	place = folder();
	const repository = new Repository(`${place}/repository`, FILES);
	provider = createServer((request, response) => provider.answer(request, response));
	await new Promise((done) => provider.listen(0, '127.0.0.1', done));
	const issuer = `http://127.0.0.1:${provider.address().port}`;
	const words = ['--oidc-issuer', issuer, '--oidc-client-id', 'picloud', '--oidc-client-secret', SECRET, '--oidc-name', 'Example'];
	words.push('--oidc-scopes', 'profile,email,groups', '--oidc-role', 'admin=platform,operator=ops,viewer=staff');
	[server, browser] = await Promise.all([Server.start([repository.path, ...words]), launch()]);
	const oidc = new Provider(issuer, {
		clients: [
			{
				client_id: 'picloud',
				client_secret: SECRET,
				redirect_uris: [`${server.url}/api/v1/admin/session/oidc/callback`]
			}
		],
		claims: { openid: ['sub'], profile: ['name'], email: ['email'], groups: ['groups'] },
		pkce: { required: () => true },
		cookies: { keys: ['only for this test'] },
		findAccount: (_, id) => ({
			accountId: id,
			claims: () => ({ sub: id, name: `${id[0].toUpperCase()}${id.slice(1)}`, email: `${id}@example.com`, groups: PEOPLE[id] ?? [] })
		})
	});
	provider.answer = oidc.callback();
	await until('the shop', async () => (await fetch(`${server.url}/apps/shop/`)).status === 500);
});

after(async () => {
	await browser?.close();
	await server?.stop();
	provider?.closeAllConnections();
	await new Promise((done) => provider.close(done));
	rmSync(place, { recursive: true, force: true });
});

/** Through the provider's own pages. */
async function signIn(window, name) {
	const { page } = window;
	await page.getByRole('link', { name: 'Sign in with Example' }).click();
	await page.locator('input[name="login"]').fill(name);
	await page.locator('input[name="password"]').fill('any');
	await page.locator('button[type="submit"]').click();
	const consent = page.getByRole('button', { name: 'Continue' });
	await Promise.race([consent.waitFor(), page.waitForURL(/\/dashboard\//)]);
	if (!page.url().includes('/dashboard/')) await consent.click();
	await page.waitForURL(/\/dashboard\//);
}

test('somebody signs in without a key, where they wanted to go, and out again', async () => {
	const window = await Window.open(browser, server);
	const { page } = window;
	await page.goto('/dashboard/keys');
	await page.waitForURL(/sign-in\?next=%2Fkeys$/);
	await page.getByRole('link', { name: 'Sign in with Example' }).waitFor();
	await window.assertAccessible('the sign-in page with a provider');
	window.assertQuiet('the sign-in page');
	await window.picture('sign-in-provider');
	await signIn(window, 'ada');
	await page.waitForURL(/\/dashboard\/keys$/);
	await window.settled();
	await page.getByText('Ada', { exact: true }).first().waitFor();
	const people = page.getByRole('region', { name: 'People' });
	await people.getByText('ada@example.com').waitFor();
	await people.getByText('admin').waitFor();
	await window.assertAccessible('people');
	await window.picture('people');
	const [cookie] = (await window.context.cookies(`${server.url}/api/v1/admin`)).filter(({ name }) => name === 'picloud_session');
	assert.ok(cookie.httpOnly && cookie.sameSite === 'Strict', JSON.stringify(cookie));
	const { items } = await server.api('GET', '/audit?action=session.create');
	assert.deepEqual([items[0].actor, items[0].subject], ['Ada', 'ada']);
	await page.getByRole('button', { name: 'Sign out', exact: true }).click();
	await page.waitForURL(/sign-in$/);
	const left = await window.context.request.get('/api/v1/admin/me');
	assert.equal(left.status(), 401);
	await window.close();
});

test('the claim decides: a viewer presses nothing, and who has no role is told so', async () => {
	const viewer = await Window.open(browser, server);
	await viewer.page.goto('/dashboard/triggers');
	await signIn(viewer, 'grace');
	await viewer.show('/triggers');
	assert.equal(await viewer.page.getByRole('button', { name: /^(Fire now|Create trigger|Delete)$/ }).count(), 0);
	assert.equal((await viewer.context.request.get('/api/v1/admin/keys')).status(), 403);
	await viewer.close();

	const stranger = await Window.open(browser, server);
	await stranger.page.goto('/dashboard/');
	await signIn(stranger, 'mallory');
	await stranger.page.getByText('have no role here').waitFor();
	assert.equal((await stranger.context.request.get('/api/v1/admin/me')).status(), 401);
	await stranger.assertAccessible('the sign-in page after a refusal');
	await stranger.close();
});

test('a way back that nobody began leads nowhere', async () => {
	const back = `${server.url}/api/v1/admin/session/oidc/callback`;
	const began = await fetch(`${server.url}/api/v1/admin/session/oidc?next=//elsewhere.example/`, { redirect: 'manual' });
	assert.equal(began.status, 303);
	const to = new URL(began.headers.get('location'));
	assert.ok(to.searchParams.get('code_challenge_method') === 'S256' && to.searchParams.get('nonce'), to.href);
	const cookie = began.headers.get('set-cookie');
	assert.match(cookie, /HttpOnly; SameSite=Lax/);
	const state = to.searchParams.get('state');
	const own = cookie.split(';')[0];
	for (const [query, headers] of [
		[`code=x&state=${state}`, {}],
		[`code=x&state=${state}`, { cookie: 'picloud_sign_in=other' }],
		['code=x&state=made-up', { cookie: 'picloud_sign_in=made-up' }],
		['code=x', { cookie: own }],
		[`code=made-up&state=${state}`, { cookie: own }],
		// The one before used it up.
		[`code=made-up&state=${state}`, { cookie: own }]
	]) {
		const answer = await fetch(`${back}?${query}`, { headers, redirect: 'manual' });
		assert.equal(answer.status, 303, query);
		assert.match(answer.headers.get('location'), /^\/dashboard\/sign-in\?error=(expired|refused)$/, query);
		assert.doesNotMatch(answer.headers.get('set-cookie') ?? '', /picloud_session/);
	}
});

test('`picloud login` is let in from the dashboard, and shown out with the person', async () => {
	const window = await Window.open(browser, server);
	await window.page.goto('/dashboard/');
	await signIn(window, 'ada');
	const environment = { ...process.env, XDG_CONFIG_HOME: `${place}/config` };
	for (const name of ['PICLOUD_SERVER', 'PICLOUD_TOKEN', 'PICLOUD_DATA_DIR']) delete environment[name];
	const login = spawn(program, ['login', '--server', server.url, '--name', 'the laptop'], { env: environment });
	let said = '';
	login.stdout.on('data', (text) => (said += text));
	login.stderr.on('data', (text) => (said += text));
	const ended = new Promise((done) => login.once('exit', done));
	const address = await until('the address', () => /Open (\S+)/.exec(said)?.[1]);
	const code = /code there is (\S+)/.exec(said)[1];
	await window.page.goto(address);
	await window.settled();
	await window.page.getByText(code).waitFor();
	await window.page.getByText('the laptop').waitFor();
	await window.assertAccessible('a program that waits');
	await window.picture('login');
	await window.page.getByRole('button', { name: 'Let it in' }).click();
	await window.page.getByText('the laptop is let in').waitFor();
	assert.equal(await ended, 0, said);
	const kept = join(place, 'config/picloud/credentials.json');
	assert.equal(statSync(kept).mode & 0o777, 0o600);
	assert.ok(!said.includes('pic_'), said);
	const key = Object.values(JSON.parse(readFileSync(kept, 'utf8')).servers)[0].key;
	const status = (...words) => execFileSync(program, ['status', ...words], { env: environment, encoding: 'utf8', stdio: 'pipe', cwd: place });
	assert.match(status('--server', server.url), /shop/);
	assert.match(status(), /shop/);
	const listed = await server.api('GET', '/keys');
	const [made] = listed.items.filter(({ name }) => name.startsWith('the laptop'));
	assert.equal(made.person.subject, 'ada');
	assert.ok(made.expires_at);
	// What hangs on the person ends with them.
	const { items } = await server.api('GET', '/people');
	const ada = items.find(({ subject }) => subject === 'ada');
	await server.api('DELETE', `/people/${ada.id}`);
	const use = await fetch(`${server.url}/api/v1/admin/me`, { headers: { authorization: `Bearer ${key}` } });
	assert.equal(use.status, 401);
	assert.equal((await window.context.request.get('/api/v1/admin/me')).status(), 401);
	assert.throws(() => status('--server', server.url));
	await window.close();
});

test('who is less than before keeps nothing that could do more', async () => {
	const window = await Window.open(browser, server);
	await window.page.goto('/dashboard/');
	await signIn(window, 'ada');
	PEOPLE.ada = ['staff'];
	const again = await Window.open(browser, server);
	await again.page.goto('/dashboard/');
	await signIn(again, 'ada');
	for (const one of [window, again]) {
		const me = await (await one.context.request.get('/api/v1/admin/me')).json();
		assert.deepEqual([me.scopes, me.key.person.role], [['app:read', 'run:read'], 'viewer']);
		await one.close();
	}
});
