// The last step of a build: takes the one inline script of the page into a file, so that the
// content security policy can do without exceptions, and compresses what is worth it.
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const out = process.env.PICLOUD_DASHBOARD_OUT ?? 'build';
const base = '/dashboard';
const TEXT = /\.(html|js|css|json|svg|txt)$/;
const WORTH_IT = 512;

const page = join(out, 'index.html');
const html = readFileSync(page, 'utf8');
const inline = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)];
if (inline.length !== 1) {
	throw new Error(`the page has ${inline.length} inline scripts where one was expected`);
}
const [element, text = ''] = inline[0];
const hash = createHash('sha256').update(text).digest('hex').slice(0, 10);
const name = `_app/immutable/boot.${hash}.js`;
writeFileSync(join(out, name), `${text.trim()}\n`);
const external = html.replace(element, `<script src="${base}/${name}"></script>`);
if (/<style|\son[a-z]+=|javascript:|https?:\/\//.test(external)) {
	throw new Error('the page holds what its content security policy forbids');
}
writeFileSync(page, external);

for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
	const file = join(entry.parentPath, entry.name);
	if (!entry.isFile() || !TEXT.test(file)) continue;
	const plain = readFileSync(file);
	if (plain.length < WORTH_IT) continue;
	const brotli = brotliCompressSync(plain, {
		params: {
			[constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
			[constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
			[constants.BROTLI_PARAM_SIZE_HINT]: plain.length
		}
	});
	writeFileSync(`${file}.br`, brotli);
	writeFileSync(`${file}.gz`, gzipSync(plain, { level: 9 }));
}
