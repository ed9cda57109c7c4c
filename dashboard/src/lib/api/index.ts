/** The admin API, one function an operation. */
import { http, path, type Query } from './http';
import type {
	Accepted,
	Adopted,
	App,
	AppDrift,
	AppStats,
	AuditEntry,
	BranchPreview,
	Count,
	CronTrigger,
	DeadLetter,
	DeadLetterFilter,
	Deployment,
	Drift,
	DriftPatch,
	EnvVariable,
	Healed,
	Instance,
	Key,
	KeyBody,
	List,
	Me,
	NewKey,
	Overview,
	People,
	SchedulePreview,
	Route,
	Scope,
	SessionState,
	WaitingLogin,
	Run,
	Script,
	ScriptDiffs,
	ScriptText,
	Session,
	Source,
	Stats,
	Trigger
} from './types';

export { ApiError } from './problem';
export type * from './types';

export interface Page {
	cursor?: string | undefined;
	limit?: number | undefined;
}

export interface RunFilter {
	app?: string | undefined;
	status?: string | undefined;
	kind?: string | undefined;
	trigger?: string | undefined;
	cause?: string | undefined;
	since?: string | undefined;
	until?: string | undefined;
}

/** Words that a list is looked through for. */
export interface Search {
	q?: string | undefined;
}

export interface AppFilter extends Search {
	sync?: string | undefined;
	health?: string | undefined;
}

type Signal = AbortSignal | undefined;
const query = (...parts: (object | undefined)[]): Query => Object.assign({}, ...parts) as Query;

/** Items of one request of a list that is wanted whole. */
const MOST = 1000;

/** A list that is shown as one: what an app declares, and sources. */
async function whole<T>(address: string, signal?: Signal): Promise<List<T>> {
	const items: T[] = [];
	let cursor: string | null | undefined;
	do {
		const part: List<T> = await http.get<List<T>>(address, query({ limit: MOST, cursor }), signal);
		items.push(...part.items);
		cursor = part.next_cursor;
	} while (cursor);
	return { items, next_cursor: null };
}

export const api = {
	session: (signal?: Signal) => http.get<SessionState>('/session', {}, signal),
	me: (signal?: Signal) => http.get<Me>('/me', {}, signal),
	signIn: (key: string) => http.post<Session>('/session', { key }),
	signOut: () => http.delete<void>('/session'),
	instance: (signal?: Signal) => http.get<Instance>('/instance', {}, signal),

	sources: (signal?: Signal) => whole<Source>('/sources', signal),
	source: (name: string, signal?: Signal) => http.get<Source>(path`/sources/${name}`, {}, signal),
	sync: (name: string) => http.post<Deployment>(`${path`/sources/${name}/sync`}?wait=true`),
	suspend: (name: string) => http.post<Source>(path`/sources/${name}/suspend`),
	resume: (name: string) => http.post<Source>(path`/sources/${name}/resume`),
	rollBack: (name: string, commit: string) =>
		http.post<Deployment>(path`/sources/${name}/rollback`, { commit }),

	previews: (source: string, signal?: Signal) =>
		http.get<{ items: BranchPreview[] }>(path`/sources/${source}/previews`, {}, signal),
	approvePreview: (source: string, slug: string) =>
		http.post<void>(path`/sources/${source}/previews/${slug}/approve`),

	/** Without what each did: `counts` says how much that was. */
	deployments: (filter: { source?: string | undefined; app?: string | undefined } & Page, signal?: Signal) =>
		http.get<List<Deployment>>('/deployments', query({ brief: true }, filter), signal),
	deployment: (id: string, signal?: Signal) =>
		http.get<Deployment>(path`/deployments/${id}`, {}, signal),
	deploymentScripts: (id: string, signal?: Signal) =>
		http.get<ScriptDiffs>(path`/deployments/${id}/scripts`, {}, signal),
	approve: (id: string) => http.post<Deployment>(path`/deployments/${id}/approve`),

	overview: (signal?: Signal) => http.get<Overview>('/overview', {}, signal),
	apps: (filter: AppFilter & Page, signal?: Signal) => http.get<List<App>>('/apps', query(filter), signal),
	allScripts: (filter: Search & Page, signal?: Signal) =>
		http.get<List<Script>>('/scripts', query(filter), signal),
	allRoutes: (filter: Search & Page, signal?: Signal) =>
		http.get<List<Route>>('/routes', query(filter), signal),
	allTriggers: (filter: Search & Page, signal?: Signal) =>
		http.get<List<Trigger>>('/triggers', query(filter), signal),
	app: (name: string, signal?: Signal) => http.get<App>(path`/apps/${name}`, {}, signal),
	scripts: (app: string, signal?: Signal) => whole<Script>(path`/apps/${app}/scripts`, signal),
	script: (app: string, file: string, signal?: Signal) =>
		http.get<ScriptText>(
			`${path`/apps/${app}/scripts/`}${file.split('/').map(encodeURIComponent).join('/')}`,
			{},
			signal
		),
	routes: (app: string, signal?: Signal) => whole<Route>(path`/apps/${app}/routes`, signal),
	env: (app: string, signal?: Signal) => whole<EnvVariable>(path`/apps/${app}/env`, signal),
	drift: (app: string, signal?: Signal) =>
		http.get<Drift>(path`/apps/${app}/drift`, {}, signal),
	drifts: (page: Page, signal?: Signal) => http.get<List<AppDrift>>('/drift', query(page), signal),
	driftPatch: (app: string, signal?: Signal) =>
		http.get<DriftPatch>(path`/apps/${app}/drift/patch`, {}, signal),
	adopt: (app: string, to: { branch: string; message?: string }) =>
		http.post<Adopted>(path`/apps/${app}/adopt`, to),
	heal: (app: string) => http.post<Healed>(path`/apps/${app}/heal`),

	triggers: (app: string, signal?: Signal) => whole<Trigger>(path`/apps/${app}/triggers`, signal),
	createCron: (app: string, trigger: CronTrigger) =>
		http.post<Trigger>(path`/apps/${app}/triggers/cron`, trigger),
	proposeCron: (app: string, trigger: CronTrigger) =>
		http.post<DriftPatch>(path`/apps/${app}/triggers/cron/proposal`, { trigger }),
	commitCron: (app: string, trigger: CronTrigger, to: { branch: string; message?: string }) =>
		http.post<Adopted>(path`/apps/${app}/triggers/cron/proposal`, { trigger, ...to }),
	changeTrigger: (app: string, name: string, fields: { enabled: boolean }) =>
		http.patch<Trigger>(path`/apps/${app}/triggers/${name}`, fields),
	deleteTrigger: (app: string, name: string) =>
		http.delete<void>(path`/apps/${app}/triggers/${name}`),
	fire: (app: string, name: string) =>
		http.post<Accepted>(path`/apps/${app}/triggers/${name}/fire`),
	schedule: (expression: string, timezone: string, n: number, signal?: Signal) =>
		http.get<SchedulePreview>('/schedule', { expression, timezone, n }, signal),

	runs: (filter: RunFilter & Page, signal?: Signal) =>
		http.get<List<Run>>('/runs', query(filter), signal),
	run: (id: string, signal?: Signal) => http.get<Run>(path`/runs/${id}`, {}, signal),
	replay: (id: string) => http.post<Accepted>(path`/runs/${id}/replay`),

	appStats: (filter: { window: string } & Page, signal?: Signal) =>
		http.get<List<AppStats>>('/stats/apps', query(filter), signal),
	stats: (filter: { app?: string | undefined; window: string }, signal?: Signal) =>
		http.get<Stats>('/stats', query(filter), signal),

	deadLetters: (filter: { app?: string | undefined; trigger?: string | undefined } & Page, signal?: Signal) =>
		http.get<List<DeadLetter>>('/dead-letters', query(filter), signal),
	redriveMany: (filter: DeadLetterFilter) => http.post<Count>('/dead-letters/redrive', filter),
	discardMany: (filter: DeadLetterFilter) => http.post<Count>('/dead-letters/discard', filter),
	redrive: (id: string) => http.post<Accepted>(path`/dead-letters/${id}/redrive`),
	discard: (id: string) => http.delete<void>(path`/dead-letters/${id}`),

	people: (signal?: Signal) => http.get<People>('/people', {}, signal),
	signPersonOut: (id: string) => http.delete<void>(path`/people/${id}`),
	waitingLogin: (code: string, signal?: Signal) =>
		http.get<WaitingLogin>(path`/login/${code}`, {}, signal),
	letIn: (code: string, approval: { scopes: Scope[]; expires_at: string }) =>
		http.post<WaitingLogin>(path`/login/${code}/approve`, approval),
	turnAway: (code: string) => http.post<void>(path`/login/${code}/deny`),

	keys: (page: Page, signal?: Signal) => http.get<List<Key>>('/keys', query(page), signal),
	createKey: (key: KeyBody) => http.post<NewKey>('/keys', key),
	revokeKey: (id: string) => http.delete<void>(path`/keys/${id}`),

	audit: (
		filter: { app?: string | undefined; action?: string | undefined; actor?: string | undefined } & Page,
		signal?: Signal
	) => http.get<List<AuditEntry>>('/audit', query(filter), signal)
};
