import { goto } from '$app/navigation';
import { base } from '$app/paths';
import { api, ApiError, type Me, type Scope, type SessionState } from '$lib/api';
import { setCsrf, whenSignedOut } from '$lib/api/http';

/** Who is signed in. The key itself is nowhere in the browser: the cookie stands for it. */
class Session {
	me = $state.raw<Me>();
	/** Set where the server can't be asked who one is. */
	error = $state.raw<ApiError>();
	/** Who people can sign in by, without a key. */
	oidc = $state.raw<SessionState['oidc']>(null);
	/** Whether the server has been asked. */
	known = $state(false);
	/** Whether the way to the sign-in page is taken already. */
	leaving = $state(false);

	/** Whether the key may do what the scope stands for, to this app (or to everything). */
	can(scope: Scope, app?: string): boolean {
		const key = this.me?.key;
		if (!key) return false;
		const held = key.scopes.includes(scope) || key.scopes.includes('instance:admin');
		return held && (key.app === null || key.app === app);
	}

	/** The only app that the key reaches, if it is a key of one. */
	get app(): string | undefined {
		return this.me?.app ?? undefined;
	}

	/** Whether the key may do it to at least one app. */
	canSomewhere(scope: Scope): boolean {
		const key = this.me?.key;
		return this.can(scope, key?.app ?? undefined);
	}

	#asked: Promise<void> | undefined;

	/** Asks the server who one is; who asks meanwhile waits for the same answer. */
	load(): Promise<void> {
		this.#asked ??= this.#ask().finally(() => (this.#asked = undefined));
		return this.#asked;
	}

	async #ask(): Promise<void> {
		try {
			// An answer, and no refusal, also where nobody is signed in.
			const state = await api.session();
			this.oidc = state.oidc;
			this.set(state.me ?? undefined);
			this.leaving = false;
			this.error = undefined;
		} catch (error) {
			this.set(undefined);
			const failed = ApiError.from(error);
			this.error = failed.status === 401 ? undefined : failed;
		}
		this.known = true;
	}

	async signIn(key: string): Promise<void> {
		const answer = await api.signIn(key);
		setCsrf(answer.csrf);
		this.leaving = false;
		// What was asked before the sign-in knows nothing of it.
		await this.#asked;
		await this.load();
		if (this.error) throw this.error;
	}

	async signOut(): Promise<void> {
		await api.signOut();
		this.leave('');
	}

	/** To the sign-in page, and back here afterwards. */
	leave(from: string): void {
		if (this.leaving) return;
		this.leaving = true;
		this.set(undefined);
		void goto(`${base}/sign-in${from ? `?next=${encodeURIComponent(from)}` : ''}`);
	}

	private set(me: Me | undefined): void {
		this.me = me;
		if (me?.csrf) setCsrf(me.csrf);
		if (!me) setCsrf(undefined);
	}
}

export const session = new Session();

whenSignedOut(() => {
	// Asking who one is answers 401 before anybody is signed in: nothing to leave then.
	if (session.me) session.leave(location.pathname.slice(base.length) + location.search);
});
