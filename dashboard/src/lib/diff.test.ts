import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compare, hunks, linesOf } from './diff';

/** As `diff -U0` would mark it. */
function marked(old: string, now: string): string[] {
	const [was, is] = [linesOf(old), linesOf(now)];
	return compare(was, is).map(({ sign, old: left, new: right }) => {
		const text = left === undefined ? is[(right ?? 0) - 1] : was[left - 1];
		if (left !== undefined && right !== undefined) assert.equal(was[left - 1], is[right - 1]);
		return sign + text;
	});
}

test('what differs is marked, and the rest is kept', () => {
	assert.deepEqual(marked('a\nb\nc\n', 'a\nx\nc\n'), [' a', '-b', '+x', ' c']);
	assert.deepEqual(marked('', 'a\nb\n'), ['+a', '+b']);
	assert.deepEqual(marked('a\n', ''), ['-a']);
	assert.deepEqual(marked('a\nb', 'a\nb\n'), [' a', ' b']);
	assert.deepEqual(marked('a\nb\na\n', 'a\na\n'), [' a', '-b', ' a']);
	assert.deepEqual(marked('one\ntwo\nthree\nfour\n', 'zero\none\nthree\nfour\nfive\n'), ['+zero', ' one', '-two', ' three', ' four', '+five']);
});

test('far from what differs nothing is shown', () => {
	const old = Array.from({ length: 30 }, (_, at) => `line ${at}`);
	const now = old.map((line, at) => (at === 2 || at === 25 ? `${line}!` : line));
	const found = hunks(compare(old, now), 2);
	assert.deepEqual(found.map(({ skipped, lines }) => [skipped, lines.length]), [[0, 6], [18, 6]]);
	assert.deepEqual(hunks(compare(old, old)), []);
});
