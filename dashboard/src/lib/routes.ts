import type { Json } from '$lib/api';
import { duration } from '$lib/format';

/** Who may call a route. */
export function authWords(auth: Json | undefined): string {
	if (auth === null || auth === undefined || auth === 'none') return 'anyone';
	if (auth === 'key') return 'a key';
	if (typeof auth === 'object' && !Array.isArray(auth)) {
		const signature = auth.signature;
		if (signature && typeof signature === 'object' && !Array.isArray(signature)) {
			return `signature (${String(signature.scheme ?? 'hmac')})`;
		}
	}
	return JSON.stringify(auth);
}

/** How often one address may call it. */
export function rateWords(limit: Json | undefined): string {
	if (limit === null || limit === undefined) return '—';
	if (typeof limit === 'string') return limit;
	if (typeof limit === 'object' && !Array.isArray(limit)) {
		const requests = limit.requests ?? limit.count ?? limit.limit;
		const ms = limit.per_ms ?? limit.window_ms ?? limit.period_ms;
		if (typeof requests === 'number' && typeof ms === 'number') {
			return `${requests} in ${duration(ms)}`;
		}
	}
	return JSON.stringify(limit);
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
