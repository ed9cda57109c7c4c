/** What a piece of a script is, as far as colours go. */
export type TokenKind = 'keyword' | 'string' | 'number' | 'comment' | 'call' | 'plain';

export interface Token {
	kind: TokenKind;
	text: string;
}

const KEYWORDS = new Set(
	(
		'let const if else switch do while until loop for in continue break return throw try catch ' +
		'fn private import export as this true false global is_shared Fn curry call'
	).split(' ')
);

const NUMBER = /(?:0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:e[+-]?\d+)?)/iy;
const NAME = /[\p{L}_][\p{L}\p{N}_]*/uy;

/**
 * A script as lines of tokens. Total: whatever is written, all of it is given back, in order.
 * Rhai's own grammar: nested block comments, `#"raw"#` strings, and `` `${…}` `` in which code
 * stands again.
 */
export function highlight(source: string): Token[][] {
	const tokens = scan(source, 0, false).tokens;
	const lines: Token[][] = [[]];
	for (const token of tokens) {
		const parts = token.text.split('\n');
		parts.forEach((text, at) => {
			if (at > 0) lines.push([]);
			const line = lines[lines.length - 1] as Token[];
			const last = line[line.length - 1];
			if (!text) return;
			if (last?.kind === token.kind) last.text += text;
			else line.push({ kind: token.kind, text });
		});
	}
	if (lines.length > 1 && lines[lines.length - 1]?.length === 0) lines.pop();
	return lines;
}

/** From `from` to the end, or, within `${…}`, to the brace that closes it. */
function scan(source: string, from: number, inner: boolean): { tokens: Token[]; end: number } {
	const tokens: Token[] = [];
	const add = (kind: TokenKind, text: string) => tokens.push({ kind, text });
	let at = from;
	let depth = 0;
	while (at < source.length) {
		const rest = source.slice(at, at + 2);
		const letter = source[at] as string;
		if (rest === '//') {
			const end = until(source, '\n', at);
			add('comment', source.slice(at, end));
			at = end;
		} else if (rest === '/*') {
			const end = blockComment(source, at);
			add('comment', source.slice(at, end));
			at = end;
		} else if (letter === '`') {
			at = template(source, at, tokens);
		} else if (letter === '"' || letter === "'") {
			const end = quoted(source, at, letter);
			add('string', source.slice(at, end));
			at = end;
		} else if (letter === '#' && /^#+"/.test(source.slice(at, at + 8))) {
			const end = raw(source, at);
			add('string', source.slice(at, end));
			at = end;
		} else {
			const number = /\d/.test(letter) ? match(NUMBER, source, at) : '';
			const name = number ? '' : match(NAME, source, at);
			if (number) add('number', number);
			else if (name) add(nameKind(source, at, name), name);
			else {
				if (letter === '{') depth += 1;
				if (letter === '}') {
					if (inner && depth === 0) return { tokens, end: at };
					depth -= 1;
				}
				add('plain', letter);
			}
			at += (number || name || letter).length;
		}
	}
	return { tokens, end: at };
}

function match(pattern: RegExp, source: string, at: number): string {
	pattern.lastIndex = at;
	return pattern.exec(source)?.[0] ?? '';
}

function nameKind(source: string, at: number, name: string): TokenKind {
	const field = source[at - 1] === '.' && source[at - 2] !== '.';
	if (KEYWORDS.has(name) && !field) return 'keyword';
	return /^\s*\(/.test(source.slice(at + name.length, at + name.length + 4)) ? 'call' : 'plain';
}

function until(source: string, mark: string, from: number): number {
	const end = source.indexOf(mark, from);
	return end < 0 ? source.length : end;
}

function blockComment(source: string, from: number): number {
	let depth = 0;
	let at = from;
	while (at < source.length) {
		const two = source.slice(at, at + 2);
		if (two === '/*') depth += 1;
		if (two === '*/') depth -= 1;
		at += two === '/*' || two === '*/' ? 2 : 1;
		if (depth === 0) break;
	}
	return Math.min(at, source.length);
}

function quoted(source: string, from: number, mark: string): number {
	for (let at = from + 1; at < source.length; at += 1) {
		if (source[at] === '\\') at += 1;
		else if (source[at] === mark) return at + 1;
	}
	return source.length;
}

function raw(source: string, from: number): number {
	let hashes = 0;
	while (source[from + hashes] === '#') hashes += 1;
	const close = `"${'#'.repeat(hashes)}`;
	const end = source.indexOf(close, from + hashes + 1);
	return end < 0 ? source.length : end + close.length;
}

function template(source: string, from: number, tokens: Token[]): number {
	let began = from;
	let at = from + 1;
	while (at < source.length) {
		if (source[at] === '\\') {
			at += 2;
		} else if (source[at] === '`') {
			tokens.push({ kind: 'string', text: source.slice(began, at + 1) });
			return at + 1;
		} else if (source.startsWith('${', at)) {
			tokens.push({ kind: 'string', text: source.slice(began, at + 2) });
			const inner = scan(source, at + 2, true);
			tokens.push(...inner.tokens);
			at = inner.end;
			began = at;
		} else {
			at += 1;
		}
	}
	tokens.push({ kind: 'string', text: source.slice(began) });
	return source.length;
}
