// Debian's Chromium, and what each page is held to.
import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const CANDIDATES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'];

/** Where Chromium is. */
export function executable() {
	const path = CANDIDATES.find((path) => path && existsSync(path));
	assert.ok(path, 'Chromium is needed: scripts/install-dependencies.sh --test');
	return path;
}

export async function launch() {
	return chromium.launch({ executablePath: executable(), args: ARGUMENTS });
}

const KINDS = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', woff2: 'font/woff2' };

/** `E2E_BUILD=build`: the pages that `npm run build` made, where the program holds older ones. */
async function serveBuild(context, folder) {
	await context.route(
		(url) => url.pathname.startsWith('/dashboard'),
		async (route) => {
			const path = new URL(route.request().url()).pathname.replace(/^\/dashboard\/?/, '');
			const file = join(folder, /\.\w+$/.test(path) && existsSync(join(folder, path)) ? path : 'index.html');
			const real = await context.request.head('/dashboard/');
			await route.fulfill({
				body: readFileSync(file),
				contentType: KINDS[file.split('.').pop()] ?? 'application/octet-stream',
				headers: { 'content-security-policy': real.headers()['content-security-policy'] ?? '' }
			});
		}
	);
}

/** A browser window of its own, with its cookies, that notes what goes wrong in it. */
export class Window {
	static async open(browser, server, { narrow = false, dark = false } = {}) {
		const window = new Window();
		window.server = server;
		window.complaints = [];
		window.strangers = [];
		window.context = await browser.newContext({
			baseURL: server.url,
			viewport: narrow ? { width: 390, height: 844 } : { width: 1360, height: 850 },
			colorScheme: dark ? 'dark' : 'light',
			reducedMotion: 'reduce'
		});
		if (process.env.E2E_BUILD) await serveBuild(window.context, process.env.E2E_BUILD);
		window.page = await window.context.newPage();
		window.page.setDefaultTimeout(15_000);
		window.page.on('console', (message) => {
			if (message.type() === 'error' || message.type() === 'warning') window.complaints.push(message.text());
		});
		window.page.on('pageerror', (error) => window.complaints.push(error.message));
		window.page.on('request', (request) => {
			if (!request.url().startsWith(server.url) && !request.url().startsWith('blob:')) window.strangers.push(request.url());
		});
		return window;
	}

	async signIn(key = this.server.key) {
		await this.page.goto('/dashboard/sign-in');
		await this.page.getByLabel('Key').fill(key);
		await this.page.getByRole('button', { name: 'Sign in' }).click();
		await this.page.waitForURL((url) => !url.pathname.endsWith('/sign-in'));
	}

	/** Opens a page by its address, and waits until nothing of it is under way. */
	async show(path) {
		await this.page.goto(`/dashboard${path}`);
		await this.settled();
	}

	async settled() {
		await this.page.locator('main h1').first().waitFor();
		await this.page.waitForFunction(() => !document.querySelector('main [aria-busy="true"]'));
	}

	/** Forgets complaints that a test means to cause. */
	forgive(pattern) {
		this.complaints = this.complaints.filter((text) => !pattern.test(text));
	}

	/** Nothing was said on the console, and no other origin was asked. */
	assertQuiet(where) {
		assert.deepEqual(this.complaints.splice(0), [], `the console, ${where}`);
		assert.deepEqual(this.strangers.splice(0), [], `requests to other origins, ${where}`);
	}

	/** No serious finding of axe, and nothing wider than the window. */
	async assertAccessible(where) {
		// By the debugger's way in, which the pages' content security policy does not bind.
		await this.page.evaluate(axe);
		const found = await this.page.evaluate(async () => {
			const result = await globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] });
			return result.violations
				.filter((one) => one.impact === 'serious' || one.impact === 'critical')
				.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`);
		});
		assert.deepEqual(found, [], `axe, ${where}`);
		const wider = await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
		assert.ok(wider <= 0, `${where} is ${wider} pixels wider than the window`);
	}

	async picture(name) {
		const folder = process.env.E2E_SCREENSHOTS;
		if (!folder) return;
		await mkdir(folder, { recursive: true });
		await this.page.screenshot({ path: join(folder, `${name}.png`) });
	}

	close() {
		return this.context.close();
	}
}
