import adapter from '@sveltejs/adapter-static';

// The build of the crate `picloud` has a folder of its own, so that builds side by side don't meet.
const out = process.env.PICLOUD_DASHBOARD_OUT ?? 'build';

/** @type {import('@sveltejs/kit').Config} */
export default {
	compilerOptions: { runes: true },
	kit: {
		// The server answers every path below /dashboard/ that is no file with this page; the
		// router in the browser takes it from there.
		adapter: adapter({ pages: out, assets: out, fallback: 'index.html', strict: false }),
		paths: { base: '/dashboard', relative: false },
		// The same sources give the same files.
		version: { name: 'picloud' },
		output: { bundleStrategy: 'split' }
	}
};
