import type { Scope } from '$lib/api';

/** What each scope lets a key do. */
export const SCOPES: { scope: Scope; words: string }[] = [
	{ scope: 'app:read', words: 'See apps, deployments, drift; fetch hosted repositories' },
	{ scope: 'run:read', words: 'See runs, logs, dead letters, statistics' },
	{ scope: 'app:invoke', words: 'Call protected endpoints, invoke scripts, replay, redrive' },
	{ scope: 'sync:write', words: 'Push, sync, suspend, roll back, approve, heal' },
	{ scope: 'trigger:write', words: 'Create, change, delete and fire triggers' },
	{ scope: 'script:write', words: 'Change scripts and what they reach' },
	{ scope: 'secret:write', words: 'Change secrets' },
	{ scope: 'key:write', words: 'Create and revoke keys' },
	{ scope: 'instance:admin', words: 'Everything' }
];
