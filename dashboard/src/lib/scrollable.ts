/**
 * What is wider than its place is scrolled by keys as well: it can be focused, and has a name,
 * for as long as it is too wide.
 */
export function scrollable(node: HTMLElement): () => void {
	const look = (): void => {
		if (node.scrollWidth > node.clientWidth) {
			node.tabIndex = 0;
			node.setAttribute('role', 'region');
			node.setAttribute('aria-label', 'Wide table');
		} else {
			for (const name of ['tabindex', 'role', 'aria-label']) node.removeAttribute(name);
		}
	};
	const watch = new ResizeObserver(look);
	watch.observe(node);
	for (const child of node.children) watch.observe(child);
	return () => watch.disconnect();
}
