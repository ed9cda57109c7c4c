// The pictures of README and docs, of a server that has something to show:
//     node e2e/pictures.js FOLDER
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { launch, Window } from './browser.js';
import { folder, Repository, Server, sql, until } from './server.js';

const into = process.argv[2] ?? 'pictures';
const place = folder();
const path = join(place, 'repository');
cpSync(resolve(import.meta.dirname, '../../examples-repo'), path, { recursive: true });
const repository = new Repository(path);
repository.commit('feat: guestbook, links, monitor, todo-api', {});
const server = await Server.start([repository.path]);
const browser = await launch();

/** Saves the window as WebP, which the browser itself writes. */
async function picture(window, name, height) {
	const png = (await window.page.screenshot({ clip: { x: 0, y: 0, width: window.page.viewportSize().width, height } })).toString('base64');
	// A page of nobody's, whose rules don't forbid images of data.
	const canvas = await window.context.newPage();
	const webp = await canvas.evaluate(async (data) => {
		const image = new Image();
		image.src = `data:image/png;base64,${data}`;
		await image.decode();
		const board = document.createElement('canvas');
		[board.width, board.height] = [image.width, image.height];
		board.getContext('2d').drawImage(image, 0, 0);
		return board.toDataURL('image/webp', 0.86).split(',')[1];
	}, png);
	await canvas.close();
	mkdirSync(into, { recursive: true });
	writeFileSync(join(into, `${name}.webp`), Buffer.from(webp, 'base64'));
}

try {
	const call = (app, where, options) => fetch(`${server.url}/apps/${app}${where}`, options);
	const post = (body) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
	await until('the apps', async () => (await call('guestbook', '/entries')).status === 200);
	for (const [name, message] of [['Ada', 'The first entry.'], ['Grace', 'Nanoseconds, please.'], ['Alan', 'Can it think?']]) {
		await call('guestbook', '/entries', post({ name, message }));
	}
	// As they were before anything was changed.
	const manifest = (app) => readFileSync(resolve(import.meta.dirname, `../../examples-repo/apps/${app}/app.yaml`), 'utf8');
	const next = async (message, files) => {
		const commit = repository.commit(message, files);
		return until(message, async () => {
			const { items } = await server.api('GET', '/deployments?limit=5');
			return items.find((it) => it.commit === commit && it.status !== 'applying');
		});
	};
	await next('feat(hello): a greeting that can be wrong', {
		'apps/hello/app.yaml': `${manifest('hello')}  - path: /price/{item}\n    script: scripts/price.rhai\n`,
		'apps/hello/scripts/price.rhai': '// What the shop asks for, taxes included.\nconst PRICES = #{ tea: 4.5, cake: 6 };\n\nfn with_tax(price) {\n    price * 1.081\n}\n\nlet item = ctx.request.params.item;\nlog::info("a visitor asks", #{ item: item });\nlet price = global::PRICES[item];\n#{ item: item, price: with_tax(price) }\n'
	});
	await call('hello', '/price/tea');
	await call('hello', '/price/coffee');
	await next('docs(links): says what it is', { 'apps/links/app.yaml': manifest('links').replace('A link shortener.', 'Short links, and how often they are followed.') });
	await next('feat(monitor): probe twice a minute', {
		'apps/monitor/app.yaml': manifest('monitor').replace('"*/5 * * * *"', '"0,30 * * * * 8"'),
		'apps/todo-api/app.yaml': manifest('todo-api').replace('routes:', 'ruotes:')
	});
	await next('fix(monitor): the day of the week', { 'apps/monitor/app.yaml': manifest('monitor').replace('"*/5 * * * *"', '"0,30 * * * *"'), 'apps/todo-api/app.yaml': manifest('todo-api') });
	// An hour of traffic: a tide, some noise, and a few failures.
	sql(server, `
INSERT INTO run_counts
SELECT a.id, date_trunc('minute', now()) - m * interval '1 minute', 'http', s.status, s.n, s.n * 1400,
    (SELECT array_agg(CASE i WHEN 6 THEN s.n / 5 WHEN 7 THEN s.n / 3 WHEN 8 THEN s.n - s.n / 5 - s.n / 3 - s.n / 8 - s.n / 40 WHEN 9 THEN s.n / 8 WHEN 11 THEN s.n / 40 ELSE 0 END ORDER BY i) FROM generate_series(1, 24) i)
FROM (SELECT id, name, row_number() OVER (ORDER BY name) k FROM apps) a, generate_series(0, 1439) m,
    LATERAL (VALUES
        ('ok', (40 + 26 * sin((m + 17 * a.k) / 9.0) + 60 * (0.5 + 0.5 * sin(m / 180.0)) + mod(abs(hashint4(m * 31 + a.k::int)), 22))::bigint),
        ('failed', (CASE WHEN mod(abs(hashint4(m * 7 + a.k::int)), 9) = 0 THEN 1 ELSE 0 END)::bigint)) s (status, n)
WHERE s.n > 0 ON CONFLICT DO NOTHING`);
	const light = await Window.open(browser, server);
	await light.signIn();
	await light.show('/');
	await light.page.getByText('Live', { exact: true }).waitFor();
	await picture(light, 'overview', 850);
	const run = (await server.api('GET', '/runs?status=failed&app=hello')).items[0];
	await light.show(`/runs/${run.id}`);
	await light.page.locator('.line.marked').waitFor();
	await picture(light, 'run', 760);
	const { items } = await server.api('GET', '/deployments?limit=10');
	await light.show(`/deployments/${items.find((it) => it.message.startsWith('feat(monitor)')).id}`);
	await picture(light, 'deployment', 800);
	await light.show('/apps/monitor/triggers');
	await light.page.getByLabel('Name', { exact: true }).fill('weekly-report');
	await light.page.getByLabel('Script', { exact: true }).selectOption({ index: 1 });
	await light.page.getByLabel('Schedule', { exact: true }).fill('0 7 * * MON-FRI');
	await light.page.getByLabel('Time zone').fill('Europe/Zurich');
	await light.page.locator('.preview li').nth(4).waitFor();
	await picture(light, 'triggers', 850);
	const dark = await Window.open(browser, server, { dark: true });
	await dark.signIn();
	await dark.show('/metrics');
	await picture(dark, 'metrics', 850);
	const narrow = await Window.open(browser, server, { dark: true, narrow: true });
	await narrow.signIn();
	await narrow.show('/');
	await narrow.page.getByText('nothing waits for you').waitFor();
	await picture(narrow, 'narrow', 844);
	console.log(execFileSync('ls', ['-l', into], { encoding: 'utf8' }));
} finally {
	await browser.close();
	await server.stop();
	rmSync(place, { recursive: true, force: true });
}
