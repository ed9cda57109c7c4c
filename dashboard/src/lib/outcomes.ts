import type { Deployment } from '$lib/api';
import { plural } from '$lib/format';
import { field } from '$lib/json';

/** What a deployment did to each app that it touched. */
export interface Outcome {
	app: string;
	/** A state's word. */
	state: string;
	words: string;
}

export function outcomes(deployment: Deployment): Outcome[] {
	const changes = new Map<string, number>();
	for (const { app } of deployment.changes) changes.set(app, (changes.get(app) ?? 0) + 1);
	const wrong = new Map<string, number>();
	for (const { app, severity } of deployment.errors) {
		if (app && severity === 'error') wrong.set(app, (wrong.get(app) ?? 0) + 1);
	}
	const told = new Map(deployment.apps.map((app) => [app.name, app.outcome]));
	const live = deployment.status === 'synced' || deployment.status === 'partial';
	const names = [...new Set([...told.keys(), ...wrong.keys(), ...changes.keys()])].sort();
	return names.map((app) => {
		const errors = wrong.get(app) ?? 0;
		const changed = plural(changes.get(app) ?? 0, 'change');
		switch (told.get(app)) {
			case 'applied':
				return { app, state: 'synced', words: changed };
			case 'removed':
				return { app, state: 'removed', words: 'stops; its data is kept' };
			case 'blocked':
				return { app, state: 'held', words: 'what it depends on has errors; stays as it was' };
			case 'reverted':
				return { app, state: 'reverted', words: 'a check failed; went back' };
			case 'invalid':
				return { app, state: 'failed', words: `${errors > 0 ? plural(errors, 'error') : 'has errors'}; stays as it was` };
			default:
				// What was deployed before outcomes were kept, or is under way.
				if (errors > 0) return { app, state: 'failed', words: `${plural(errors, 'error')}; stays as it was` };
				return { app, state: live ? 'synced' : deployment.status, words: changed };
		}
	});
}

/** How many errors and warnings there are, in words. */
export function findings({ errors, warnings }: Deployment['counts']): { words: string; bad: boolean }[] {
	return [
		...(errors > 0 ? [{ words: plural(errors, 'error'), bad: true }] : []),
		...(warnings > 0 ? [{ words: plural(warnings, 'warning'), bad: false }] : [])
	];
}

/** Why there is a deployment, where it isn't a new commit. */
export function reason(of: Deployment): string | undefined {
	const words: Record<string, string> = { rollback: 'rollback', heal: 'healed' };
	const given = field(of, 'reason');
	return typeof given === 'string' ? words[given] : undefined;
}

/** When the window opens for which a deployment waits. */
export function opensAt(of: Deployment): string | undefined {
	const at = field(of, 'waits_until');
	return of.status === 'waiting' && typeof at === 'string' ? at : undefined;
}
