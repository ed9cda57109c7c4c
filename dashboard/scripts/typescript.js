// Lets Node 20 run the tests of our TypeScript: types are taken away, `$lib` is found.
import { register } from 'node:module';

register('./typescript-hooks.js', import.meta.url);
