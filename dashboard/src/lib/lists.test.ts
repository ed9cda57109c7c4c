import assert from 'node:assert/strict';
import { test } from 'node:test';
import { api } from './api/index';

test('what an app declares is shown whole, however many parts its list has', async () => {
	const asked: string[] = [];
	globalThis.fetch = async (address) => {
		asked.push(String(address));
		const next = asked.length < 3 ? `c${asked.length}` : null;
		return Response.json({ items: [{ path: `scripts/${asked.length}.rhai` }], next_cursor: next });
	};
	const list = await api.scripts('shop');
	assert.deepEqual(
		list.items.map((script) => script.path),
		['scripts/1.rhai', 'scripts/2.rhai', 'scripts/3.rhai']
	);
	assert.equal(list.next_cursor, null);
	assert.deepEqual(asked, [
		'/api/v1/admin/apps/shop/scripts?limit=1000',
		'/api/v1/admin/apps/shop/scripts?limit=1000&cursor=c1',
		'/api/v1/admin/apps/shop/scripts?limit=1000&cursor=c2'
	]);
});
