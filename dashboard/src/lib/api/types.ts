/** What the admin API gives. Times are RFC 3339 text in UTC. */

export type Scope =
	| 'app:read'
	| 'app:invoke'
	| 'script:write'
	| 'trigger:write'
	| 'secret:write'
	| 'sync:write'
	| 'run:read'
	| 'key:write'
	| 'instance:admin';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface List<T> {
	items: T[];
	next_cursor: string | null;
}

export interface Key {
	id: string;
	name: string;
	prefix: string;
	scopes: Scope[];
	app: string | null;
	created_at: string;
	expires_at: string | null;
	last_used_at: string | null;
}

export interface NewKey {
	id: string;
	key: string;
	name: string;
	scopes: Scope[];
	app: string | null;
}

export interface Me {
	key: Key;
	version: string;
	/** Absent where one came with a key and not with a session. */
	csrf?: string | null;
	expires_at?: string | null;
}

export interface Session {
	csrf: string;
	expires_at: string;
}

export interface StatsBucket {
	at: string;
	count: number;
	errors: number;
	error_rate: number | null;
	mean_ms: number | null;
	p50_ms: number | null;
	p95_ms: number | null;
	p99_ms: number | null;
}

export interface Stats extends Omit<StatsBucket, 'at'> {
	app: string | null;
	window: string;
	bucket_seconds: number;
	from: string;
	until: string;
	by_status: Record<string, number>;
	by_kind: Record<string, number>;
	buckets: StatsBucket[];
}

export interface Instance {
	version: string;
	recipient: string;
	generation: number | null;
	edits?: number | null;
	started_at?: string;
	uptime_seconds?: number;
	/** For who runs the server. */
	database?: { version: string; size: number; connections: number; idle_connections: number };
	nodes?: InstanceNode[];
}

export interface InstanceNode {
	id: string;
	roles: string[] | string;
	version: string;
	generation: number | null;
	started_at: string;
	seen_at: string;
}

export interface Source {
	id: string;
	name: string;
	kind: 'local' | 'hosted' | 'remote';
	url: string;
	branch: string | null;
	path: string;
	interval_ms: number | null;
	webhook_secret_set: boolean;
	forge: { kind: string; api_url: string | null; token_set: boolean } | null;
	commit: string | null;
	head: string | null;
	suspended: boolean;
	error: string | null;
}

export type DeploymentStatus =
	'applying' | 'synced' | 'partial' | 'failed' | 'held' | 'waiting' | 'reverted';

export interface FieldChange {
	path: string;
	old: Json;
	new: Json;
}

export interface Change {
	app: string;
	kind: string;
	name: string;
	change: 'added' | 'changed' | 'removed';
	fields: FieldChange[];
}

export interface Diagnostic {
	path: string;
	line: number;
	column: number;
	length: number;
	severity: 'error' | 'warning';
	code: string;
	message: string;
	hint?: string;
	excerpt?: string;
	app?: string;
}

export interface Deployment {
	id: string;
	source: string;
	commit: string;
	previous_commit: string | null;
	author: string;
	message: string;
	status: DeploymentStatus;
	changes: Change[];
	errors: Diagnostic[];
	history_rewritten: boolean;
	generation: number | null;
	started_at: string;
	duration_ms: number | null;
	steps: { step: string; ms: number }[];
}

export interface Limits {
	[name: string]: number;
}

export interface App {
	id: string;
	name: string;
	description: string | null;
	source: string | null;
	dir: string;
	commit: string | null;
	sync: 'synced' | 'drifted' | 'failed' | 'suspended';
	health: 'healthy' | 'degraded' | 'idle';
	domains: string[];
	limits: Limits;
	permissions: { http: { allow: string[] | null } };
	static: string | null;
	routes: number;
	scripts: number;
	triggers: number;
}

export interface Route {
	path: string;
	methods: string[];
	script: string;
	mode: 'sync' | 'async';
	auth: Json;
	cors: Json;
	rate_limit: Json;
	limits: Json;
}

export interface Script {
	path: string;
	kind: 'handler' | 'module';
	blob: string;
}

export interface ScriptText extends Script {
	source: string;
}

export interface Trigger {
	id: string | null;
	name: string;
	kind: 'cron' | 'kv' | 'docs' | 'dead_letter';
	script: string;
	enabled: boolean;
	schedule?: string;
	timezone?: string;
	overlap?: string;
	catch_up?: string;
	collection?: string;
	events?: string[];
	source_kind?: string;
	retry: { attempts: number; backoff: string; max_backoff: string };
	words?: string;
	next_fire_times?: string[];
	next_fire_at?: string | null;
}

export interface EnvVariable {
	name: string;
	/** `null`: a secret, which is never shown. */
	value: string | null;
	secret: boolean;
}

export interface DriftItem {
	kind: string;
	name: string;
	change: 'added' | 'changed' | 'removed';
	fields: { path: string; desired: Json; live: Json }[];
}

export type RunStatus = 'ok' | 'failed' | 'timeout' | 'limit' | 'crashed' | 'skipped' | 'rejected';

export interface LogLine {
	at: string;
	level: 'debug' | 'info' | 'warn' | 'error';
	message: string;
	fields?: Json;
}

export interface RunError {
	kind: string;
	message: string;
	script: string | null;
	line: number | null;
	column: number | null;
	trace?: string[];
}

export interface Run {
	id: string;
	app: string;
	script: string;
	kind: 'http' | 'cron' | 'kv' | 'docs' | 'dead_letter' | 'invoke' | 'enqueue';
	trigger: string | null;
	route: string | null;
	commit: string;
	attempt: number;
	status: RunStatus;
	started_at: string;
	duration_ms: number;
	queue_ms: number;
	operations: number;
	peak_memory: number;
	error: RunError | null;
	logs: LogLine[];
	dropped_logs: number;
	cause: string | null;
	request?: Json;
	event?: Json;
}

export interface Link {
	run: string;
	script: string;
	trigger: string | null;
}

export interface DeadLetter {
	id: string;
	app: string;
	source_kind: string;
	trigger: string | null;
	script: string;
	attempts: number;
	last_error: Json;
	event: Json;
	chain: Link[];
	created_at: string;
}

export interface AuditEntry {
	id: string;
	at: string;
	actor: string;
	action: string;
	target: string;
	app: string | null;
	before: Json;
	after: Json;
	detail: Json;
}

export interface Preview {
	words: string;
	times: string[];
}
