/** Whether all letters of `wanted` stand in `name` in their order, words of it anywhere. */
export function matches(name: string, wanted: string): boolean {
	const text = name.toLowerCase();
	return wanted
		.toLowerCase()
		.split(/\s+/)
		.filter(Boolean)
		.every((word) => {
			let from = 0;
			for (const letter of word) {
				const at = text.indexOf(letter, from);
				if (at < 0) return false;
				from = at + 1;
			}
			return true;
		});
}
