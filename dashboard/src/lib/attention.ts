import type { App, Deployment, Source } from '$lib/api';
import { plural } from '$lib/format';

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
	failed: (it) => `${plural(it.errors.filter((error) => error.severity === 'error').length, 'error')}; nothing of this commit is live`,
	partial: (it) => `${plural(it.errors.filter((error) => error.severity === 'error').length, 'error')}; some apps stay at an earlier commit`,
	held: () => 'removes much: waits for an approval',
	reverted: () => 'a check failed; its apps went back',
	waiting: () => 'waits for its window'
};

/** What waits for somebody, the worst first. */
export function attention(
	sources: Source[],
	apps: App[],
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
	for (const app of apps) {
		const path = `/apps/${app.name}`;
		if (app.health === 'degraded') {
			found.push({ rank: 2, state: 'degraded', title: app.name, text: 'more than one run in twenty fails', path: `/runs?app=${app.name}&status=failed` });
		}
		if (app.sync === 'drifted') {
			found.push({ rank: 3, state: 'drifted', title: app.name, text: 'live differs from git', path: `${path}/drift` });
		}
	}
	if (letters > 0) {
		const text = letters >= 50 ? 'at least 50 events were given up' : `${plural(letters, 'event')} given up`;
		found.push({ rank: 4, state: 'failed', title: 'Dead letters', text, path: '/dead-letters' });
	}
	return found.sort((a, b) => a.rank - b.rank);
}
