import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asYaml, check, fieldOf, localTime } from './cron-form';
import { ceiling, ticks } from './chart';
import { ago, authorName, bytes, count, duration, percent, shortCommit } from './format';
import { fill, parameters } from './routes';
import { matches } from './search';

test('times, amounts and shares are short', () => {
	const now = Date.parse('2026-01-02T00:00:00Z');
	assert.equal(ago('2026-01-01T23:59:59Z', now), 'just now');
	assert.equal(ago('2026-01-01T23:57:00Z', now), '3 min ago');
	assert.equal(ago('2026-01-02T02:30:00Z', now), 'in 2 h');
	assert.equal(ago('rubbish', now), '—');
	assert.deepEqual([0.04, 3.25, 38.4, 1200, 61_000, 3_600_000, null].map(duration), ['0.04 ms', '3.3 ms', '38 ms', '1.2 s', '1 min 1 s', '1 h', '—']);
	assert.deepEqual([0, 1023, 1536, 64 << 20].map(bytes), ['0 B', '1023 B', '1.5 KiB', '64 MiB']);
	assert.deepEqual([9999, 12_400, 3_100_000].map(count), ['9 999', '12.4 k', '3.1 M']);
	assert.deepEqual([0, 0.00005, 0.047, 0.31, null].map(percent), ['0 %', '< 0.01 %', '4.7 %', '31 %', '—']);
	assert.ok(shortCommit('0123456789abcdef').length >= 7);
	assert.equal(authorName('Ada Lovelace <ada@example.com>'), 'Ada Lovelace');
});

test('a route is filled with what stands in for its names', () => {
	assert.deepEqual(parameters('/a/{id}/{*rest}'), ['id', 'rest']);
	assert.equal(fill('/a/{id}/{*rest}', { id: 'x/y z', rest: 'b/c d' }), '/a/x%2Fy%20z/b/c%20d');
});

test('the cron form knows what is wrong before the server is asked', () => {
	const good = { name: 'nightly', script: 'scripts/a.rhai', schedule: '@daily', timezone: 'UTC' };
	assert.deepEqual(check(good, []), {});
	assert.deepEqual(Object.keys(check({ name: '', script: '', schedule: ' ', timezone: '' }, [])), ['name', 'script', 'schedule', 'timezone']);
	assert.match(check(good, ['nightly']).name ?? '', /already/);
	assert.match(check({ ...good, name: 'a b' }, []).name ?? '', /letters/);
	assert.equal(fieldOf('expression', ''), 'schedule');
	assert.equal(fieldOf(undefined, 'there is no time zone `X`'), 'timezone');
	assert.equal(fieldOf(undefined, 'the app has no script `x`'), 'script');
	assert.equal(fieldOf(undefined, 'hour: 25 is more than 23'), 'schedule');
	assert.equal(fieldOf(undefined, 'something else'), undefined);
});

test('times stand in their own zone, and YAML in quotes where it must', () => {
	assert.equal(localTime('2026-11-25T06:00:00+01:00'), 'Wed, 25 Nov 2026, 06:00:00 +01:00');
	assert.equal(localTime('2026-11-25T06:00:00Z'), 'Wed, 25 Nov 2026, 06:00:00 UTC');
	const yaml = asYaml({ name: '7', script: 'scripts/a.rhai', schedule: '0 6 * * *', timezone: 'UTC' }, false);
	assert.match(yaml, /name: "7"/);
	assert.match(yaml, /schedule: "0 6 \* \* \*"/);
	assert.match(yaml, /enabled: false/);
});

test('an axis ends at a round number, with labels evenly', () => {
	assert.deepEqual([0, 0.003, 1, 3, 11, 26, 99].map(ceiling), [1, 0.004, 1, 4, 20, 40, 100]);
	assert.deepEqual(ticks(60, 4), [7, 22, 37, 52]);
	assert.deepEqual(ticks(0, 4), []);
});

test('the search finds letters in their order', () => {
	assert.ok(matches('Dead letters', 'dl'));
	assert.ok(matches('Runs of guestbook', 'guest run'));
	assert.ok(!matches('Apps', 'pa s'));
});
