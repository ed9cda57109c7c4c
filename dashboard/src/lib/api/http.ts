import { ApiError } from './problem';

const BASE = '/api/v1/admin';

/** Sent with each write, so that no other site's page can write with our cookie. */
let csrf: string | undefined;

export function setCsrf(token: string | undefined): void {
	csrf = token;
}

/** Called when the session is over, wherever that is noticed. */
let onSignedOut: () => void = () => {};

export function whenSignedOut(then: () => void): void {
	onSignedOut = then;
}

export type Query = Record<string, string | number | boolean | null | undefined>;

export function path(strings: TemplateStringsArray, ...parts: string[]): string {
	return strings.reduce((all, text, at) => {
		const part = parts[at];
		return all + text + (part === undefined ? '' : encodeURIComponent(part));
	}, '');
}

export function withQuery(address: string, query: Query = {}): string {
	const given = new URLSearchParams();
	for (const [key, value] of Object.entries(query)) {
		if (value !== undefined && value !== null && value !== '') given.set(key, String(value));
	}
	const text = given.toString();
	return text ? `${address}?${text}` : address;
}

async function send(method: string, address: string, body?: unknown, signal?: AbortSignal) {
	const headers: Record<string, string> = { accept: 'application/json' };
	if (method !== 'GET' && csrf) headers['x-csrf-token'] = csrf;
	if (body !== undefined) headers['content-type'] = 'application/json';
	let response: Response;
	try {
		response = await fetch(BASE + address, {
			method,
			headers,
			credentials: 'same-origin',
			...(body !== undefined && { body: JSON.stringify(body) }),
			...(signal && { signal })
		});
	} catch (error) {
		if (signal?.aborted) throw error;
		throw ApiError.from(error);
	}
	if (!response.ok) {
		const error = await ApiError.of(response);
		if (response.status === 401 && address !== '/session') onSignedOut();
		throw error;
	}
	return response;
}

async function read<T>(response: Response): Promise<T> {
	if (response.status === 204) return undefined as T;
	const text = await response.text();
	return (text ? JSON.parse(text) : undefined) as T;
}

export const http = {
	get: async <T>(address: string, query?: Query, signal?: AbortSignal): Promise<T> =>
		read<T>(await send('GET', withQuery(address, query), undefined, signal)),
	post: async <T>(address: string, body?: unknown): Promise<T> =>
		read<T>(await send('POST', address, body)),
	put: async <T>(address: string, body?: unknown): Promise<T> =>
		read<T>(await send('PUT', address, body)),
	patch: async <T>(address: string, body?: unknown): Promise<T> =>
		read<T>(await send('PATCH', address, body)),
	delete: async <T>(address: string): Promise<T> => read<T>(await send('DELETE', address))
};
