import { ApiError } from '$lib/api';

export interface Toast {
	id: number;
	text: string;
	bad: boolean;
	action?: { name: string; run: () => void } | undefined;
}

/** How long a message stays. One with something to do stays longer. */
const STAYS = 6_000;
const STAYS_WITH_ACTION = 15_000;

class Toasts {
	items = $state<Toast[]>([]);
	private last = 0;

	say(text: string, action?: Toast['action']): void {
		this.add({ text, bad: false, action }, action ? STAYS_WITH_ACTION : STAYS);
	}

	fail(error: unknown): void {
		this.add({ text: ApiError.from(error).message, bad: true }, STAYS_WITH_ACTION);
	}

	dismiss(id: number): void {
		this.items = this.items.filter((toast) => toast.id !== id);
	}

	private add(toast: Omit<Toast, 'id'>, stays: number): void {
		this.last += 1;
		const id = this.last;
		this.items = [...this.items.slice(-3), { ...toast, id }];
		setTimeout(() => this.dismiss(id), stays);
	}
}

export const toasts = new Toasts();
