import { api, ApiError, type Run } from '$lib/api';
import { field } from '$lib/json';

/** As deep as a chain of events gets before it is cut. */
const DEPTH = 16;

/** The runs that led to this one, the first cause first, this one last. */
export async function causes(run: Run, signal: AbortSignal): Promise<Run[]> {
	const chain = [run];
	while (chain.length <= DEPTH) {
		const cause = chain[0]?.cause;
		if (!cause) break;
		try {
			chain.unshift(await api.run(cause, signal));
		} catch (error) {
			// A successful cause isn't always recorded, and an old one is gone.
			if (error instanceof ApiError && error.status === 404) break;
			throw error;
		}
	}
	return chain;
}

/** All runs of the same event, by attempt. */
export async function attempts(run: Run, signal: AbortSignal): Promise<Run[]> {
	const event = eventId(run);
	if (!run.trigger || !event) return [run];
	const list = await api.runs({ app: run.app, trigger: run.trigger, limit: 200 }, signal);
	const same = list.items.filter((other) => eventId(other) === event);
	if (!same.some((other) => other.id === run.id)) same.push(run);
	return same.sort((a, b) => a.attempt - b.attempt);
}

/** The same on every attempt. */
export function eventId(run: Run): string | undefined {
	const id = field(run.event, 'id');
	return typeof id === 'string' ? id : undefined;
}
