import type { Deployment, Overview, Source } from '$lib/api';
import { plural } from '$lib/format';

/** Apps that have a line of their own. */
const FEW = 5;
/** So many the server names, and so many dead letters it counts. */
const MOST_NAMED = 50;
export const MOST_LETTERS = 10_000;

/** Something that a person should look at. */
export interface Wait {
	/** A state's word, for its colour and sign. */
	state: string;
	title: string;
	text: string;
	/** Below the base path. */
	path: string;
}

const OF_DEPLOYMENT: Partial<Record<Deployment['status'], (it: Deployment) => string>> = {
	failed: (it) => `${plural(it.counts.errors, 'error')}; nothing of this commit is live`,
	partial: (it) => `${plural(it.counts.errors, 'error')}; some apps stay at an earlier commit`,
	held: () => 'removes much: waits for an approval',
	reverted: () => 'a check failed; its apps went back',
	waiting: () => 'waits for its window'
};

type Ranked = Wait & { rank: number };

/** A line an app while they are few; one line for all of them where they are many. */
function gathered(names: string[], state: string, rank: number, text: string, path: (name: string) => string): Ranked[] {
	if (names.length <= FEW) return names.map((name) => ({ rank, state, title: name, text, path: path(name) }));
	const kind = state === 'degraded' ? 'health' : 'sync';
	const many = names.length >= MOST_NAMED ? `${MOST_NAMED} apps or more` : `${names.length} apps`;
	return [{ rank, state, title: many, text, path: `/apps?${kind}=${state}` }];
}

/** What waits for somebody, the worst first. */
export function attention(
	sources: Source[],
	apps: Overview['attention'],
	last: Record<string, Deployment>,
	letters: number
): Wait[] {
	const found: (Wait & { rank: number })[] = [];
	for (const source of sources) {
		const deployment = last[source.name];
		const words = deployment && OF_DEPLOYMENT[deployment.status];
		if (source.error) {
			found.push({ rank: 0, state: 'failed', title: source.name, text: source.error, path: `/deployments?source=${source.name}` });
		} else if (deployment && words) {
			const rank = deployment.status === 'waiting' ? 5 : 1;
			const title = `${source.name} at ${deployment.commit.slice(0, 8)}`;
			found.push({ rank, state: deployment.status, title, text: words(deployment), path: `/deployments/${deployment.id}` });
		}
		if (source.suspended) {
			found.push({ rank: 6, state: 'suspended', title: source.name, text: 'deploys nothing until it is resumed', path: `/deployments?source=${source.name}` });
		}
	}
	const degraded = apps.filter((app) => app.health === 'degraded').map((app) => app.app);
	found.push(
		...gathered(degraded, 'degraded', 2, 'more than one run in twenty fails', (name) => `/runs?app=${name}&status=failed`)
	);
	const drifted = apps.filter((app) => app.sync === 'drifted').map((app) => app.app);
	found.push(...gathered(drifted, 'drifted', 3, 'live differs from git', (name) => `/apps/${name}/drift`));
	if (letters > 0) {
		const text = letters >= MOST_LETTERS ? `at least ${plural(MOST_LETTERS, 'event')} given up` : `${plural(letters, 'event')} given up`;
		found.push({ rank: 4, state: 'failed', title: 'Dead letters', text, path: '/dead-letters' });
	}
	return found.sort((a, b) => a.rank - b.rank);
}
