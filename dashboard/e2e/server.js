// A real server on a real repository, and a browser: what the tests drive.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const root = resolve(import.meta.dirname, '../..');
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
export const program = process.env.PICLOUD_BIN ?? join(target, 'debug/picloud');

/** A folder that the private PostgreSQL's user can reach. */
export function folder() {
	const made = mkdtempSync(join(tmpdir(), 'picloud-e2e-'));
	chmodSync(made, 0o755);
	return made;
}

/** A git repository with the files given. */
export class Repository {
	constructor(path, files) {
		this.path = path;
		mkdirSync(path, { recursive: true });
		this.git('init', '--quiet', '--initial-branch', 'main');
		this.git('config', 'user.name', 'Ada Lovelace');
		this.git('config', 'user.email', 'ada@example.com');
		this.git('config', 'commit.gpgsign', 'false');
		if (files) this.commit('feat: the first apps', files);
	}

	git(...words) {
		return execFileSync('git', words, { cwd: this.path, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
	}

	/** Writes files (`null` removes one) and commits; gives the commit's id. */
	commit(message, files) {
		for (const [name, text] of Object.entries(files)) {
			const path = join(this.path, name);
			if (text === null) {
				rmSync(path);
			} else {
				mkdirSync(dirname(path), { recursive: true });
				writeFileSync(path, text);
			}
		}
		this.git('add', '--all');
		this.git('commit', '--quiet', '--message', message);
		return this.git('rev-parse', 'HEAD');
	}
}

/** Waits until something is so. */
export async function until(what, isSo, most = 20_000) {
	const began = Date.now();
	for (;;) {
		const value = await isSo();
		if (value) return value;
		if (Date.now() - began > most) throw new Error(`waited in vain for ${what}`);
		await sleep(50);
	}
}

/** A running picloud, with everything of it below one folder. */
export class Server {
	static async start(words) {
		const server = new Server();
		server.folder = folder();
		const ready = join(server.folder, 'ready.json');
		const log = openSync(join(server.folder, 'log'), 'a');
		const environment = { ...process.env, RUST_LOG: 'warn' };
		for (const name of ['DATABASE_URL', 'PICLOUD_SERVER', 'PICLOUD_TOKEN', 'PICLOUD_ADMIN_TOKEN']) delete environment[name];
		server.child = spawn(
			program,
			['up', ...words, '--data-dir', join(server.folder, 'data'), '--listen', '127.0.0.1:0', '--ready-file', ready],
			{ stdio: ['ignore', log, log], env: environment }
		);
		server.ended = new Promise((done) => server.child.once('exit', done));
		await until('the server', () => {
			if (server.child.exitCode !== null) throw new Error(`picloud ended:\n${server.log()}`);
			return existsSync(ready);
		}, 60_000);
		const told = JSON.parse(readFileSync(ready, 'utf8'));
		server.url = told.url;
		server.key = readFileSync(told.admin_token_file, 'utf8').trim();
		return server;
	}

	log() {
		return readFileSync(join(this.folder, 'log'), 'utf8');
	}

	async api(method, path, body) {
		const response = await fetch(`${this.url}/api/v1/admin${path}`, {
			method,
			headers: { authorization: `Bearer ${this.key}`, 'content-type': 'application/json' },
			...(body !== undefined && { body: JSON.stringify(body) })
		});
		const text = await response.text();
		if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
		return text ? JSON.parse(text) : undefined;
	}

	async stop() {
		this.child.kill('SIGTERM');
		const timer = setTimeout(() => this.child.kill('SIGKILL'), 15_000);
		await this.ended;
		clearTimeout(timer);
		rmSync(this.folder, { recursive: true, force: true });
	}
}

/** Statements, asked of the private PostgreSQL by whoever owns it. */
export function sql(server, text) {
	const cluster = join(server.folder, 'data', 'postgres');
	const pid = execFileSync('find', [cluster, '-name', 'postmaster.pid'], { encoding: 'utf8' }).trim().split('\n')[0];
	const lines = readFileSync(pid, 'utf8').split('\n');
	const { uid, gid } = statSync(pid);
	const user = execFileSync('id', ['-un', String(uid)], { encoding: 'utf8' }).trim();
	const words = ['psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-h', lines[4], '-p', lines[3], '-U', user];
	const options = { input: text, encoding: 'utf8', stdio: 'pipe', ...(process.getuid() === 0 && { uid, gid }), cwd: '/' };
	for (const database of ['picloud', 'postgres']) {
		try {
			return execFileSync(words[0], [...words.slice(1), '-d', database], options);
		} catch (error) {
			if (!/does not exist/.test(String(error.stderr))) throw error;
		}
	}
	throw new Error('the private PostgreSQL has no such database');
}
