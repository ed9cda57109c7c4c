import { getContext } from 'svelte';
import type { App } from '$lib/api';

/** The app whose pages these are. */
export interface AppContext {
	readonly name: string;
	readonly app: App | undefined;
	reload: () => void;
}

export const APP = Symbol('app');

export function appContext(): AppContext {
	return getContext<AppContext>(APP);
}
