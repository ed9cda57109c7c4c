import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { highlight, type TokenKind } from './code/rhai';

function check(source: string, expected: [TokenKind, string][]): void {
	const found = highlight(source)
		.flat()
		.filter((token) => token.kind !== 'plain')
		.map((token) => [token.kind, token.text]);
	assert.deepEqual(found, expected, source);
}

test('what stands in a script is told apart', () => {
	check('let x = 1;', [['keyword', 'let'], ['number', '1']]);
	check('fn add(a) { a + 0xff }', [['keyword', 'fn'], ['call', 'add'], ['number', '0xff']]);
	check('kv::set("a\\"b", \'c\')', [['call', 'set'], ['string', '"a\\"b"'], ['string', "'c'"]]);
	check('/* a /* b */ c */ 1', [['comment', '/* a /* b */ c */'], ['number', '1']]);
	check('#"raw " text"# + 1', [['string', '#"raw " text"#'], ['number', '1']]);
	check('##"raw "# text"##', [['string', '##"raw "# text"##']]);
	check('#{ a: 1 }', [['number', '1']]);
	check('map.for', []);
	check('0..10', [['number', '0'], ['number', '10']]);
});

test('code stands within templates, and templates within that', () => {
	check('`a ${f(`b ${1}`) + 2} c`', [
		['string', '`a ${'],
		['call', 'f'],
		['string', '`b ${'],
		['number', '1'],
		['string', '}`'],
		['number', '2'],
		['string', '} c`']
	]);
	check('`${ #{ a: 1 } }`', [['string', '`${'], ['number', '1'], ['string', '}`']]);
});

test('all of a script is given back, line by line, whatever is written', () => {
	const examples = join(import.meta.dirname, '../../../examples-repo');
	const files = readdirSync(examples, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.rhai'));
	assert.ok(files.length > 5);
	const texts = files.map((name) => readFileSync(join(examples, name), 'utf8'));
	for (const text of [...texts, '"never ends\nlet', '`${`${', '/* ', '#', '\\', '}', '`${}}', '🦀 let é = `ü`;\n\n']) {
		const lines = highlight(text).map((line) => line.map((token) => token.text).join(''));
		assert.equal(lines.join('\n'), text.replace(/\n$/, ''), text);
	}
});
