/** What the server says when it doesn't do as asked (RFC 9457), or that it didn't answer. */
export class ApiError extends Error {
	/** HTTP's status; 0 where there was no answer. */
	readonly status: number;
	/** Stable word: `forbidden`, `not_found`, `invalid`, … */
	readonly code: string;
	/** The field that is wrong, where the server says which. */
	readonly field: string | undefined;

	constructor(status: number, code: string, message: string, field?: string) {
		super(message);
		this.name = 'ApiError';
		this.status = status;
		this.code = code;
		this.field = field;
	}

	static async of(response: Response): Promise<ApiError> {
		try {
			const problem = (await response.json()) as Record<string, unknown>;
			const text = (key: string) => (typeof problem[key] === 'string' ? problem[key] : undefined);
			return new ApiError(
				response.status,
				text('code') ?? 'unknown',
				text('detail') ?? text('title') ?? response.statusText,
				text('field')
			);
		} catch {
			return new ApiError(response.status, 'unknown', `the server answered ${response.status}`);
		}
	}

	static from(error: unknown): ApiError {
		if (error instanceof ApiError) return error;
		return new ApiError(0, 'unreachable', 'the server does not answer');
	}
}
