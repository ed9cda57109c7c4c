import { ApiError } from '$lib/api';
import { live, type Happening } from './live.svelte';

/** Events that come closer together than this make one new request. */
const GATHER = 120;
/** At most one request in this time, however many events come. */
const REST = 1_000;

/** Something that is asked of the server, shown, and asked anew when it may have changed. */
export class Resource<T> {
	data = $state.raw<T>();
	error = $state.raw<ApiError>();
	loading = $state(true);
	#reload: () => void = () => {};

	/** Asks anew; what is there stays until the answer comes. */
	reload = (): void => this.#reload();

	/** Shows what a write gave, without asking. */
	set(data: T): void {
		this.data = data;
		this.error = undefined;
	}

	/** @internal */
	bind(reload: () => void): void {
		this.#reload = reload;
	}
}

/**
 * A resource for as long as the component lives. `load` is called anew when what it reads before
 * its first wait changes, and after each event for which `when` holds.
 */
export function resource<T>(
	load: (signal: AbortSignal) => Promise<T>,
	when: (event: Happening) => boolean = () => false
): Resource<T> {
	const result = new Resource<T>();
	let current: AbortController | undefined;
	let timer: ReturnType<typeof setTimeout> | undefined;
	let last = 0;

	const run = (): void => {
		current?.abort();
		const mine = new AbortController();
		current = mine;
		last = Date.now();
		result.loading = true;
		load(mine.signal).then(
			(data) => {
				if (mine.signal.aborted) return;
				result.data = data;
				result.error = undefined;
				result.loading = false;
			},
			(error: unknown) => {
				if (mine.signal.aborted) return;
				result.error = ApiError.from(error);
				result.loading = false;
			}
		);
	};
	const soon = (): void => {
		timer ??= setTimeout(
			() => {
				timer = undefined;
				run();
			},
			Math.max(GATHER, last + REST - Date.now())
		);
	};
	result.bind(run);

	$effect(() => {
		run();
		return () => current?.abort();
	});
	$effect(() => {
		const ends = [live.on((event) => when(event) && soon()), live.onMissed(soon)];
		return () => {
			for (const end of ends) end();
			clearTimeout(timer);
			timer = undefined;
		};
	});
	return result;
}
