/** How things are written: for people, short, the same everywhere. */

export function shortCommit(commit: string | null | undefined): string {
	return commit ? commit.slice(0, 8) : '—';
}

const UNITS: [number, string][] = [
	[60, 's'],
	[60, 'min'],
	[24, 'h'],
	[365, 'd'],
	[Infinity, 'y']
];

/** `just now`, `3 min ago`, `in 2 h`. */
export function ago(time: string, now: number): string {
	const seconds = (now - Date.parse(time)) / 1000;
	if (Number.isNaN(seconds)) return '—';
	if (Math.abs(seconds) < 3) return 'just now';
	let amount = Math.abs(seconds);
	for (const [size, unit] of UNITS) {
		if (amount < size) {
			const text = `${Math.floor(amount)} ${unit}`;
			return seconds > 0 ? `${text} ago` : `in ${text}`;
		}
		amount /= size;
	}
	return '—';
}

/** `0.4 ms`, `38 ms`, `1.20 s`, `2 min 5 s`. */
export function duration(ms: number | null | undefined): string {
	if (ms === null || ms === undefined || Number.isNaN(ms)) return '—';
	if (ms < 10) return `${trim(ms.toFixed(ms < 1 ? 2 : 1))} ms`;
	if (ms < 1000) return `${Math.round(ms)} ms`;
	if (ms < 60_000) return `${trim((ms / 1000).toFixed(ms < 10_000 ? 2 : 1))} s`;
	const seconds = Math.round(ms / 1000);
	const parts = [
		[Math.floor(seconds / 86_400), 'd'],
		[Math.floor((seconds % 86_400) / 3600), 'h'],
		[Math.floor((seconds % 3600) / 60), 'min'],
		[seconds % 60, 's']
	] as const;
	const shown = parts.filter(([amount]) => amount > 0).slice(0, 2);
	return shown.map(([amount, unit]) => `${amount} ${unit}`).join(' ');
}

function trim(number: string): string {
	return number.includes('.') ? number.replace(/\.?0+$/, '') : number;
}

/** `512 B`, `64 KiB`, `6.5 MiB`. */
export function bytes(amount: number | null | undefined): string {
	if (amount === null || amount === undefined) return '—';
	const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
	let at = 0;
	let rest = amount;
	while (rest >= 1024 && at < units.length - 1) {
		rest /= 1024;
		at += 1;
	}
	return `${trim(rest.toFixed(at === 0 || rest >= 100 ? 0 : 1))} ${units[at]}`;
}

/** `942`, `12.4 k`, `3.1 M`. */
export function count(amount: number | null | undefined): string {
	if (amount === null || amount === undefined) return '—';
	if (amount < 10_000) return amount.toLocaleString('en-GB').replaceAll(',', ' ');
	if (amount < 1_000_000) return `${trim((amount / 1000).toFixed(1))} k`;
	return `${trim((amount / 1_000_000).toFixed(1))} M`;
}

/** `0 %`, `0.02 %`, `4.7 %`, `31 %`. */
export function percent(ratio: number | null | undefined): string {
	if (ratio === null || ratio === undefined || Number.isNaN(ratio)) return '—';
	const value = ratio * 100;
	if (value === 0) return '0 %';
	if (value < 0.01) return '< 0.01 %';
	return `${trim(value.toFixed(value < 1 ? 2 : value < 10 ? 1 : 0))} %`;
}

/** `1 route`, `3 routes`. */
export function plural(amount: number, one: string, many = `${one}s`): string {
	return `${amount.toLocaleString('en-GB').replaceAll(',', ' ')} ${amount === 1 ? one : many}`;
}

/** The whole time, for titles: local, with the zone. */
export function fullTime(time: string): string {
	const date = new Date(time);
	if (Number.isNaN(date.getTime())) return time;
	return date.toLocaleString('en-GB', {
		dateStyle: 'medium',
		timeStyle: 'medium',
		timeZoneName: undefined
	} as Intl.DateTimeFormatOptions);
}

/** `14:03:22.118`, in local time. */
export function clockTime(time: string): string {
	const date = new Date(time);
	if (Number.isNaN(date.getTime())) return time;
	const two = (value: number) => String(value).padStart(2, '0');
	const ms = String(date.getMilliseconds()).padStart(3, '0');
	return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** The name of an author of the form `Name <address>`. */
export function authorName(author: string): string {
	return author.replace(/\s*<[^>]*>\s*$/, '') || author;
}

/** The first line of a commit's message. */
export function subject(message: string): string {
	return message.trim().split('\n', 1)[0] ?? '';
}

/** A value as one line of text. */
export function inline(value: unknown): string {
	if (value === null || value === undefined) return '—';
	if (typeof value === 'string') return value;
	return JSON.stringify(value);
}
