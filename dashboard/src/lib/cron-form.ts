/** What can be said of a cron trigger's fields before the server is asked. */
export interface CronFields {
	name: string;
	script: string;
	schedule: string;
	timezone: string;
}

export type Field = keyof CronFields;
export type Wrong = Partial<Record<Field, string>>;

/** The rule of the server: 1 to 63 letters, digits, hyphens, underscores and dots. */
const NAME = /^[A-Za-z0-9._-]{1,63}$/;

export function check(fields: CronFields, taken: string[]): Wrong {
	const wrong: Wrong = {};
	const name = fields.name.trim();
	if (!name) wrong.name = 'Give the trigger a name.';
	else if (!NAME.test(name)) wrong.name = 'Use 1 to 63 letters, digits, hyphens, underscores and dots.';
	else if (taken.includes(name)) wrong.name = `The app has a trigger ${name} already.`;
	if (!fields.script.trim()) wrong.script = 'Choose the script that runs.';
	if (!fields.schedule.trim()) wrong.schedule = 'Say when it fires, like 0 6 * * 1-5.';
	if (!fields.timezone.trim()) wrong.timezone = 'Name a time zone, like Europe/Zurich.';
	return wrong;
}

/** Where in the form a refusal of the server belongs. */
export function fieldOf(field: string | undefined, message: string): Field | undefined {
	const names: Record<string, Field> = {
		expression: 'schedule',
		schedule: 'schedule',
		timezone: 'timezone',
		name: 'name',
		script: 'script'
	};
	if (field && names[field]) return names[field];
	if (/time ?zone/i.test(message)) return 'timezone';
	if (/script|module/i.test(message)) return 'script';
	if (/schedule|second|minute|hour|day-of|month/i.test(message)) return 'schedule';
	return undefined;
}

/** The names that the browser knows, UTC first. */
export function timeZones(): string[] {
	const known = Intl.supportedValuesOf('timeZone');
	return ['UTC', ...known.filter((zone) => zone !== 'UTC')];
}

/** `Wed, 25 Nov 2026, 06:00:00 +01:00` of RFC 3339 text with an offset, as it stands there. */
export function localTime(text: string): string {
	const found = /^(\d{4})-(\d\d)-(\d\d)T(\d\d:\d\d(?::\d\d)?)(Z|[+-]\d\d:\d\d)$/.exec(text);
	if (!found) return text;
	const [, year, month, day, time, offset] = found;
	const date = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day)));
	const words = date.toLocaleDateString('en-GB', {
		weekday: 'short',
		day: 'numeric',
		month: 'short',
		year: 'numeric',
		timeZone: 'UTC'
	});
	return `${words}, ${time} ${offset === 'Z' ? 'UTC' : offset}`;
}

/** The same change as it would stand in app.yaml. */
export function asYaml(fields: CronFields, enabled: boolean): string {
	const plain = (text: string) => (/^[A-Za-z][\w./-]*$/.test(text) ? text : JSON.stringify(text));
	const lines = [
		'triggers:',
		`  - name: ${plain(fields.name.trim())}`,
		'    kind: cron',
		`    script: ${plain(fields.script)}`,
		`    schedule: ${JSON.stringify(fields.schedule.trim())}`,
		`    timezone: ${plain(fields.timezone.trim())}`
	];
	if (!enabled) lines.push('    enabled: false');
	return lines.join('\n');
}
