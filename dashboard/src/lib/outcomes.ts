import type { Deployment, Diagnostic } from '$lib/api';
import { plural } from '$lib/format';

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
	const live = deployment.status === 'synced' || deployment.status === 'partial';
	const names = [...new Set([...wrong.keys(), ...changes.keys()])].sort();
	return names.map((app) => {
		const errors = wrong.get(app) ?? 0;
		if (errors > 0) return { app, state: 'failed', words: `${plural(errors, 'error')}; stays as it was` };
		return {
			app,
			state: live ? 'synced' : deployment.status,
			words: plural(changes.get(app) ?? 0, 'change')
		};
	});
}

/** How many errors and warnings there are, in words. */
export function findings(of: Diagnostic[]): { words: string; bad: boolean }[] {
	const warnings = of.filter((one) => one.severity === 'warning').length;
	const errors = of.length - warnings;
	return [
		...(errors > 0 ? [{ words: plural(errors, 'error'), bad: true }] : []),
		...(warnings > 0 ? [{ words: plural(warnings, 'warning'), bad: false }] : [])
	];
}
