/** A field of a value that may be anything. */
export function field(value: unknown, name: string): unknown {
	if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined;
	return (value as Record<string, unknown>)[name];
}
