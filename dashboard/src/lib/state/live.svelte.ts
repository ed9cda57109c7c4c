import { createSubscriber } from 'svelte/reactivity';

export const KINDS = ['deployment', 'drift', 'run', 'trigger'] as const;
export type Kind = (typeof KINDS)[number];

export interface Happening {
	kind: Kind;
	app?: string;
	apps?: string[];
	[more: string]: unknown;
}

type Listener = (event: Happening) => void;

/** Milliseconds before the first new try, and the most. */
const FIRST_WAIT = 500;
const MOST_WAIT = 15_000;

/** What happens on the server, as it happens. */
class Live {
	/** `on`: connected; `waiting`: the connection is lost and tried again; `off`: not wanted. */
	status = $state<'off' | 'connecting' | 'on' | 'waiting'>('off');
	private listeners = new Set<Listener>();
	private missed = new Set<() => void>();
	private stream: EventSource | undefined;
	private timer: ReturnType<typeof setTimeout> | undefined;
	private wait = FIRST_WAIT;
	private lost = false;
	private lastId = '';

	start(): void {
		if (this.stream || this.timer) return;
		this.status = 'connecting';
		this.connect();
	}

	stop(): void {
		this.stream?.close();
		this.stream = undefined;
		clearTimeout(this.timer);
		this.timer = undefined;
		this.status = 'off';
	}

	/** Calls back with each event; gives the function that ends it. */
	on(listener: Listener): () => void {
		this.listeners.add(listener);
		return () => this.listeners.delete(listener);
	}

	/** Calls back when events may have been missed, so that what is shown must be asked anew. */
	onMissed(listener: () => void): () => void {
		this.missed.add(listener);
		return () => this.missed.delete(listener);
	}

	private connect(): void {
		// A new EventSource has no Last-Event-ID: it is given in the address.
		const query = this.lastId ? `?last_event_id=${encodeURIComponent(this.lastId)}` : '';
		const stream = new EventSource(`/api/v1/admin/events${query}`);
		this.stream = stream;
		stream.onopen = () => {
			this.status = 'on';
			this.wait = FIRST_WAIT;
			if (this.lost) this.tellMissed();
			this.lost = false;
		};
		stream.onerror = () => this.again();
		// The server's own word for "you were too slow for all of it".
		stream.addEventListener('missed', () => this.tellMissed());
		for (const kind of KINDS) {
			stream.addEventListener(kind, (message) => this.hear(kind, message as MessageEvent<string>));
		}
	}

	private hear(kind: Kind, message: MessageEvent<string>): void {
		if (message.lastEventId) this.lastId = message.lastEventId;
		let data: unknown;
		try {
			data = JSON.parse(message.data);
		} catch {
			this.tellMissed();
			return;
		}
		const event = { ...(data as object), kind } as Happening;
		for (const listener of this.listeners) listener(event);
	}

	private tellMissed(): void {
		for (const listener of this.missed) listener();
	}

	/** Own tries, with growing waits: the browser gives up for good on an answer like 503. */
	private again(): void {
		this.stream?.close();
		this.stream = undefined;
		this.lost = true;
		this.status = 'waiting';
		clearTimeout(this.timer);
		this.timer = setTimeout(
			() => {
				this.timer = undefined;
				this.connect();
			},
			this.wait * (0.75 + Math.random() / 2)
		);
		this.wait = Math.min(this.wait * 2, MOST_WAIT);
	}
}

export const live = new Live();

/** The time, as of the last whole second or so; what reads it is drawn anew as it passes. */
class Clock {
	private subscribe = createSubscriber((update) => {
		const timer = setInterval(update, 1_000);
		return () => clearInterval(timer);
	});

	get now(): number {
		this.subscribe();
		return Date.now();
	}
}

export const clock = new Clock();
