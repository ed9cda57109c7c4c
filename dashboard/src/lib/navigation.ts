import type { Component } from 'svelte';
import type { Scope } from '$lib/api';
import Activity from '@lucide/svelte/icons/activity';
import AlarmClock from '@lucide/svelte/icons/alarm-clock';
import Boxes from '@lucide/svelte/icons/boxes';
import ChartLine from '@lucide/svelte/icons/chart-line';
import FileCode from '@lucide/svelte/icons/file-code';
import GitCompare from '@lucide/svelte/icons/git-compare';
import House from '@lucide/svelte/icons/house';
import KeyRound from '@lucide/svelte/icons/key-round';
import MailWarning from '@lucide/svelte/icons/mail-warning';
import Rocket from '@lucide/svelte/icons/rocket';
import RouteIcon from '@lucide/svelte/icons/route';
import ScrollText from '@lucide/svelte/icons/scroll-text';
import Server from '@lucide/svelte/icons/server';

export interface Place {
	name: string;
	/** Below the base path. */
	path: string;
	/** Pressed after `g`. */
	key: string;
	icon: Component<{ size?: number }>;
	/** Who lacks it doesn't see the page's name. */
	scope?: Scope;
}

/** All pages, in the groups in which they stand at the side. */
export const PLACES: { group: string; places: Place[] }[] = [
	{
		group: '',
		places: [{ name: 'Overview', path: '/', key: 'o', icon: House as Place['icon'], scope: 'app:read' }]
	},
	{
		group: 'Serve',
		places: [
			{ name: 'Apps', path: '/apps', key: 'a', icon: Boxes as Place['icon'], scope: 'app:read' },
			{ name: 'Routes', path: '/routes', key: 'u', icon: RouteIcon as Place['icon'], scope: 'app:read' },
			{ name: 'Scripts', path: '/scripts', key: 's', icon: FileCode as Place['icon'], scope: 'app:read' },
			{ name: 'Triggers', path: '/triggers', key: 't', icon: AlarmClock as Place['icon'], scope: 'app:read' }
		]
	},
	{
		group: 'Deploy',
		places: [
			{ name: 'Drift', path: '/drift', key: 'f', icon: GitCompare as Place['icon'], scope: 'app:read' },
			{ name: 'Deployments', path: '/deployments', key: 'd', icon: Rocket as Place['icon'], scope: 'app:read' }
		]
	},
	{
		group: 'Observe',
		places: [
			{ name: 'Runs', path: '/runs', key: 'r', icon: Activity as Place['icon'], scope: 'run:read' },
			{ name: 'Dead letters', path: '/dead-letters', key: 'l', icon: MailWarning as Place['icon'], scope: 'run:read' },
			{ name: 'Metrics', path: '/metrics', key: 'm', icon: ChartLine as Place['icon'], scope: 'run:read' }
		]
	},
	{
		group: 'Manage',
		places: [
			{ name: 'Keys', path: '/keys', key: 'k', icon: KeyRound as Place['icon'], scope: 'key:write' },
			{ name: 'Audit', path: '/audit', key: 'y', icon: ScrollText as Place['icon'], scope: 'instance:admin' },
			{ name: 'Instance', path: '/instance', key: 'i', icon: Server as Place['icon'] }
		]
	}
];

export const ALL_PLACES: Place[] = PLACES.flatMap((group) => group.places);
