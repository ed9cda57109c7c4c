import { duration } from '$lib/format';
import { field } from '$lib/json';

/** Who may call a route. */
export function authWords(auth: unknown): string {
	if (auth === null || auth === undefined || auth === 'none') return 'anyone';
	if (auth === 'key') return 'a key';
	const scheme = field(field(auth, 'signature'), 'scheme');
	return typeof scheme === 'string' ? `signature (${scheme})` : JSON.stringify(auth);
}

/** How often one address may call it. */
export function rateWords(limit: unknown): string {
	if (limit === null || limit === undefined) return '—';
	const requests = field(limit, 'requests');
	const ms = field(limit, 'window_ms');
	if (typeof requests === 'number' && typeof ms === 'number') return `${requests} in ${duration(ms)}`;
	return typeof limit === 'string' ? limit : JSON.stringify(limit);
}

/** The names in a pattern: `/entries/{id}/{*rest}` has `id` and `rest`. */
export function parameters(path: string): string[] {
	return [...path.matchAll(/\{\*?([^}]+)\}/g)].map((found) => found[1] as string);
}

/** The pattern with values in place of names. A wildcard's value keeps its slashes. */
export function fill(path: string, values: Record<string, string>): string {
	return path.replace(/\{(\*?)([^}]+)\}/g, (_, star: string, name: string) => {
		const value = values[name] ?? '';
		return star ? value.split('/').map(encodeURIComponent).join('/') : encodeURIComponent(value);
	});
}
