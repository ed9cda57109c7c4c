import { api, type Deployment } from '$lib/api';
import { shortCommit } from '$lib/format';
import { toasts } from '$lib/state/toasts.svelte';

/** Makes a former commit live, and offers the way back. */
export async function rollBack(source: string, commit: string): Promise<Deployment> {
	const deployment = await api.rollBack(source, commit);
	toasts.say(
		`${shortCommit(commit)} is live again. The head of ${source} is not deployed until a newer commit arrives.`,
		{
			name: 'Resume',
			run: () => {
				api.resume(source).catch((error: unknown) => toasts.fail(error));
			}
		}
	);
	return deployment;
}

/** Fetches a source and deploys its head. */
export async function sync(source: string): Promise<void> {
	const deployment = await api.sync(source);
	toasts.say(`${source}: ${shortCommit(deployment.commit)} is ${deployment.status}.`);
}
