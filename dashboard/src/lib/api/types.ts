/** What the admin API gives, by the names of its own description (`schema/openapi.json`). */
import type { components } from './schema';

type Schemas = components['schemas'];

export type Json = unknown;

/** A part of a list. */
export interface List<T> {
	items: T[];
	/** Where the next part begins; `null` at the end. */
	next_cursor: string | null;
}

export type Key = Schemas['Key'];
export type NewKey = Schemas['NewKey'];
export type KeyBody = Schemas['KeyBody'];
export type Scope = Key['scopes'][number];
export type SessionState = Schemas['SessionState'];
export type People = Schemas['People'];
export type WaitingLogin = Schemas['WaitingLogin'];
export type DeadLetterFilter = Schemas['DeadLetterFilter'];
export type Count = Schemas['Count'];
export type Me = Schemas['Me'];
export type Session = Schemas['Session'];
export type Instance = Schemas['Instance'];
export type Source = Schemas['Source'];
export type Deployment = Schemas['Deployment'];
export type DeploymentStatus = Deployment['status'];
export type Change = Schemas['Change'];
export type Diagnostic = Schemas['Diagnostic'];
export type App = Schemas['App'];
export type Route = Schemas['Route'];
export type Script = Schemas['ScriptInfo'];
export type ScriptDiffs = Schemas['ScriptDiffs'];
export type ScriptText = Schemas['Script'];
export type Trigger = Schemas['Trigger'];
export type CronTrigger = Schemas['CronTriggerBody'];
export type EnvVariable = Schemas['EnvVariable'];
export type Drift = Schemas['Drift'];
export type DriftItem = Schemas['DriftItem'];
export type AppDrift = Schemas['AppDrift'];
export type DriftPatch = Schemas['DriftPatch'];
export type Adopted = Schemas['Adopted'];
export type Healed = Schemas['Healed'];
export type Run = Schemas['Run'];
export type RunStatus = Run['status'];
export type LogLine = Run['logs'][number];
export type DeadLetter = Schemas['DeadLetter'];
export type AuditEntry = Schemas['AuditEntry'];
export type AppStats = Schemas['AppStats'];
export type Overview = Schemas['Overview'];
export type Stats = Schemas['Stats'];
export type SchedulePreview = Schemas['Schedule'];
export type BranchPreview = Schemas['Preview'];
export type Accepted = Schemas['Accepted'];
