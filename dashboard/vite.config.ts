import { sveltekit } from '@sveltejs/kit/vite';
import { defineConfig, type Plugin } from 'vite';

// `npm run dev` shows the pages of a running server: PICLOUD_SERVER says where it is.
const server = process.env.PICLOUD_SERVER ?? 'http://127.0.0.1:8080';

/**
 * The element in which SvelteKit tells screen readers of a new page has its style in an attribute,
 * which our content security policy forbids. `base.css` has the same rules.
 */
const announcer: Plugin = {
	name: 'announcer-without-style',
	enforce: 'pre',
	transform(code, id) {
		if (!id.split('?')[0]?.endsWith('/generated/root.svelte')) return undefined;
		const plain = code.replace(/(<div id="svelte-announcer"[^>]*?) style="[^"]*"/, '$1');
		if (plain === code) this.error('the announcer looks otherwise now');
		return { code: plain, map: null };
	}
};

export default defineConfig({
	plugins: [announcer, sveltekit()],
	server: { proxy: { '/api': { target: server, changeOrigin: true }, '/apps': server } },
	// No `data:` addresses: the pages' content security policy allows files of the server alone.
	build: { assetsInlineLimit: 0, chunkSizeWarningLimit: 250, reportCompressedSize: false }
});
