import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { resolve as join } from 'node:path';
import ts from 'typescript';

const LIB = join(import.meta.dirname, '../src/lib');

export async function resolve(specifier, context, next) {
	const own = specifier.startsWith('$lib');
	if (!own && !(specifier.startsWith('.') && context.parentURL?.endsWith('.ts'))) return next(specifier, context);
	const path = own ? LIB + specifier.slice('$lib'.length) : fileURLToPath(new URL(specifier, context.parentURL));
	const found = [path, `${path}.ts`, join(path, 'index.ts')].find((file) => /\.\w+$/.test(file) && existsSync(file));
	return next(found ? pathToFileURL(found).href : specifier, context);
}

export async function load(url, context, next) {
	if (!url.endsWith('.ts')) return next(url, context);
	const { outputText } = ts.transpileModule(readFileSync(fileURLToPath(url), 'utf8'), {
		compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 }
	});
	return { format: 'module', source: outputText, shortCircuit: true };
}
