import { goto } from '$app/navigation';
import { page } from '$app/state';

/** What the address says: filters and places in lists are links that can be kept. */
export function param(name: string): string | undefined {
	return page.url.searchParams.get(name) || undefined;
}

/** The address with these parameters; absent ones are taken out. A new filter begins the list anew. */
export function address(fields: Record<string, string | undefined>): string {
	const url = new URL(page.url);
	if (!('cursor' in fields)) url.searchParams.delete('cursor');
	for (const [name, value] of Object.entries(fields)) {
		if (value) url.searchParams.set(name, value);
		else url.searchParams.delete(name);
	}
	return url.pathname + url.search;
}

export function setParams(fields: Record<string, string | undefined>): Promise<void> {
	return goto(address(fields), { keepFocus: true, noScroll: true });
}
