import { api, type List } from '$lib/api';

/** Apps looked at together, and requests under way at once. */
const APPS = 100;
const AT_ONCE = 6;

/** What each app has, over a page of apps, with the app's name beside each thing. */
export async function across<T extends object>(
	cursor: string | undefined,
	load: (app: string) => Promise<{ items: T[] }>,
	signal: AbortSignal
): Promise<List<T & { app: string }>> {
	const apps = await api.apps({ cursor, limit: APPS }, signal);
	const names = apps.items.map((app) => app.name);
	const lists = await inTurn(names, load, AT_ONCE);
	const items = lists.flatMap((list, at) =>
		list.items.map((item) => ({ ...item, app: names[at] as string }))
	);
	return { items, next_cursor: apps.next_cursor };
}

/** All answers in the order of what was asked, with so many requests under way at once. */
export async function inTurn<I, O>(inputs: I[], ask: (input: I) => Promise<O>, atOnce: number): Promise<O[]> {
	const answers = new Array<O>(inputs.length);
	let next = 0;
	async function work(): Promise<void> {
		while (next < inputs.length) {
			const at = next;
			next += 1;
			answers[at] = await ask(inputs[at] as I);
		}
	}
	await Promise.all(Array.from({ length: Math.min(atOnce, inputs.length) }, work));
	return answers;
}
