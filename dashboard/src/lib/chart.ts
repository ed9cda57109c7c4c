/** Where an axis ends: a round number that is no less, and whose half is round, too. */
export function ceiling(value: number): number {
	if (!(value > 0)) return 1;
	const power = 10 ** Math.floor(Math.log10(value));
	const step = [1, 2, 4, 6, 8, 10].find((factor) => factor * power >= value * 0.999_999) ?? 10;
	return step * power;
}

/** Which of `count` places get a label, evenly, so many at most. */
export function ticks(count: number, most: number): number[] {
	if (count === 0) return [];
	const step = Math.max(1, Math.ceil(count / most));
	const places: number[] = [];
	for (let at = Math.floor(step / 2); at < count; at += step) places.push(at);
	return places;
}

/** A time of day, or a day where the axis is longer than two. */
export function timeLabel(time: string, all: string[]): string {
	const date = new Date(time);
	const span = Date.parse(all[all.length - 1] ?? time) - Date.parse(all[0] ?? time);
	if (span > 2 * 86_400_000) return date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
	return date.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
}
