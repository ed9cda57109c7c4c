// Takes out of GitHub's published OpenAPI and webhook examples what the tests of this repository
// need, so that 400 MB of packages are needed only when that is done anew. `--check`: only says
// whether what is committed is what the packages have.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const OPERATIONS = [
	['post', '/repos/{owner}/{repo}/statuses/{sha}'],
	['get', '/repos/{owner}/{repo}/issues/{issue_number}/comments'],
	['post', '/repos/{owner}/{repo}/issues/{issue_number}/comments'],
	['patch', '/repos/{owner}/{repo}/issues/comments/{comment_id}']
];
const EVENTS = {
	ping: () => true,
	push: () => true,
	pull_request: (example) => ['opened', 'synchronize', 'closed', 'edited'].includes(example.action)
};

const require = createRequire(import.meta.url);
const load = (path) => JSON.parse(readFileSync(require.resolve(path), 'utf8'));

const api = load('@octokit/openapi/generated/api.github.com.deref.json');
const operations = OPERATIONS.map(([method, path]) => {
	const operation = api.paths[path][method];
	const body = operation.requestBody?.content['application/json'].schema ?? null;
	const query = (operation.parameters ?? []).filter((parameter) => parameter.in === 'query');
	const status = Object.keys(operation.responses).find((code) => code.startsWith('2'));
	return {
		method: method.toUpperCase(),
		path,
		status: Number(status),
		query: query.map(({ name, schema }) => ({ name, schema: slim(schema) })),
		body: slim(body),
		answer: slim(operation.responses[status].content['application/json'].schema)
	};
});

/** A schema without what validates nothing. */
function slim(schema, depth = 0) {
	if (Array.isArray(schema)) return schema.map((item) => slim(item, depth));
	if (schema === null || typeof schema !== 'object') return schema;
	const kept = ['type', 'required', 'enum', 'properties', 'items', 'additionalProperties', 'maximum', 'minimum', 'nullable', 'oneOf', 'anyOf', 'allOf'];
	// Of answers, only what stands at their top is read.
	if (depth > 2) return schema.type ? { type: schema.type } : {};
	return Object.fromEntries(
		Object.entries(schema)
			.filter(([key]) => kept.includes(key))
			.map(([key, value]) => [
				key,
				key === 'properties'
					? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, slim(one, depth + 1)]))
					: slim(value, depth + (key === 'items' ? 0 : 0))
			])
	);
}

const examples = load('@octokit/webhooks-examples/api.github.com/index.json');
const webhooks = examples
	.filter(({ name }) => name in EVENTS)
	.flatMap(({ name, examples }) => examples.filter(EVENTS[name]).map((body) => ({ name, body })))
	.filter(first);

/** Of deliveries that say the same, one is enough. */
function first({ name, body }, at, all) {
	const key = (one) => `${one.name} ${one.body.action ?? one.body.ref}`;
	return all.findIndex((other) => key(other) === `${name} ${body.action ?? body.ref}`) === at;
}

let stale = false;
for (const [file, value] of Object.entries({ 'github-api.json': operations, 'github-webhooks.json': webhooks })) {
	const url = new URL(file, import.meta.url);
	const text = `[\n${value.map((one) => JSON.stringify(one)).join(',\n')}\n]\n`;
	if (!process.argv.includes('--check')) writeFileSync(url, text);
	else if (readFileSync(url, 'utf8') !== text) {
		console.error(`${file} is not what the packages have: run npm run extract`);
		stale = true;
	}
}
process.exitCode = stale ? 1 : 0;
