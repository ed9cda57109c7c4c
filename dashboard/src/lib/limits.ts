import { bytes, count, duration } from '$lib/format';

/** A limit as the API names it, in words. */
export function limit(name: string, value: unknown): { name: string; value: string } {
	const words = name.replace(/_ms$/, '').replaceAll('_', ' ');
	if (typeof value !== 'number') return { name: words, value: String(value) };
	if (name.endsWith('_ms')) return { name: words, value: duration(value) };
	if (/memory|body/.test(name)) return { name: words, value: bytes(value) };
	return { name: words, value: count(value) };
}
