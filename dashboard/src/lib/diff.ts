/** One line of a comparison: kept, taken out, or put in, with its number on each side. */
export interface DiffLine {
	sign: ' ' | '-' | '+';
	/** From 1; absent on the side that lacks the line. */
	old?: number;
	new?: number;
}

/** Lines that differ, with lines around them; `skipped`: how many equal lines stand before. */
export interface Hunk {
	skipped: number;
	lines: DiffLine[];
}

/** Beyond this much work both texts are shown as wholly different: a page must not hang. */
const MOST = 4_000_000;

/** The lines of a text; a last line break begins no line. */
export function linesOf(text: string): string[] {
	if (text === '') return [];
	return text.replace(/\n$/, '').split('\n');
}

/** What one has to do to the old lines to have the new ones (Myers' least edit, by its table). */
export function compare(old: string[], now: string[]): DiffLine[] {
	let head = 0;
	while (head < old.length && head < now.length && old[head] === now[head]) head += 1;
	let tail = 0;
	while (
		tail < old.length - head &&
		tail < now.length - head &&
		old[old.length - 1 - tail] === now[now.length - 1 - tail]
	) {
		tail += 1;
	}
	const kept = (from: number, to: number, shift: number): DiffLine[] =>
		Array.from({ length: to - from }, (_, at) => ({ sign: ' ', old: from + at + 1, new: from + at + 1 + shift }));
	return [
		...kept(0, head, 0),
		...middle(old.slice(head, old.length - tail), now.slice(head, now.length - tail), head),
		...kept(old.length - tail, old.length, now.length - old.length)
	];
}

function middle(old: string[], now: string[], before: number): DiffLine[] {
	const out = (from: number, to: number): DiffLine[] =>
		Array.from({ length: to - from }, (_, at) => ({ sign: '-', old: before + from + at + 1 }));
	const put = (from: number, to: number): DiffLine[] =>
		Array.from({ length: to - from }, (_, at) => ({ sign: '+', new: before + from + at + 1 }));
	const width = now.length + 1;
	if (old.length * now.length > MOST) return [...out(0, old.length), ...put(0, now.length)];
	// How many lines are common from here on.
	const common = new Uint32Array((old.length + 1) * width);
	for (let i = old.length - 1; i >= 0; i -= 1) {
		for (let j = now.length - 1; j >= 0; j -= 1) {
			common[i * width + j] =
				old[i] === now[j]
					? (common[(i + 1) * width + j + 1] ?? 0) + 1
					: Math.max(common[(i + 1) * width + j] ?? 0, common[i * width + j + 1] ?? 0);
		}
	}
	const lines: DiffLine[] = [];
	let [i, j] = [0, 0];
	while (i < old.length && j < now.length) {
		if (old[i] === now[j]) {
			lines.push({ sign: ' ', old: before + i + 1, new: before + j + 1 });
			i += 1;
			j += 1;
		} else if ((common[(i + 1) * width + j] ?? 0) >= (common[i * width + j + 1] ?? 0)) {
			lines.push(...out(i, i + 1));
			i += 1;
		} else {
			lines.push(...put(j, j + 1));
			j += 1;
		}
	}
	return [...lines, ...out(i, old.length), ...put(j, now.length)];
}

/** The parts that differ, with so many lines around each. */
export function hunks(lines: DiffLine[], around = 3): Hunk[] {
	const near = new Array<boolean>(lines.length).fill(false);
	lines.forEach((line, at) => {
		if (line.sign === ' ') return;
		for (let by = Math.max(0, at - around); by <= Math.min(lines.length - 1, at + around); by += 1) near[by] = true;
	});
	const found: Hunk[] = [];
	let skipped = 0;
	let open: Hunk | undefined;
	lines.forEach((line, at) => {
		if (!near[at]) {
			skipped += 1;
			open = undefined;
			return;
		}
		if (!open) {
			open = { skipped, lines: [] };
			found.push(open);
			skipped = 0;
		}
		open.lines.push(line);
	});
	return found;
}
