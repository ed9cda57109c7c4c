// One page for all paths: everything shown comes from the admin API, with the caller's key.
export const ssr = false;
export const prerender = false;
export const trailingSlash = 'never';
