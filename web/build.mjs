// Builds each entry of src/entries into one ES module, and each file of src/public into its types;
// builds the service workers of src/workers and
// copies the texts of src/languages: `node build.mjs FOLDER`. With `--npm`, the folder is that of the npm package: also what is in
// src/npm, without what is loaded from the service. The same sources give the same bytes; files without a source are removed.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const [folder = 'dist', npm] = process.argv.slice(2);
const target = resolve(folder);
const options = {
  absWorkingDir: here,
  outdir: target,
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['es2022'],
  charset: 'utf8',
  legalComments: 'none',
  loader: { '.css': 'text' },
  logLevel: 'warning',
};
const types = sources('src/public');

mkdirSync(target, { recursive: true });
for (const name of readdirSync(target)) if (/\.(js|d\.ts|json)$/.test(name)) rmSync(join(target, name));
const ours = /tocsin-(ops|web-push)/;
const entries = sources('src/entries').filter((entry) => !npm || !ours.test(entry));
await build({ ...options, entryPoints: entries, plugins: [{ name: 'small css', setup: minifyCss }] });
if (npm) {
  types.push(...sources('src/npm'));
  const plugins = [{ name: 'neighbours', setup: loadNeighbours }];
  await build({ ...options, entryPoints: ['src/npm/tocsin-react.ts'], external: ['react'], plugins });
}
// a service worker is a classic script, which hosts can import into their own
if (!npm) await build({ ...options, format: 'iife', entryPoints: sources('src/workers') });
if (npm) leaveImports(join(target, 'tocsin-bell.js'));
writeTypes();
// the bell loads them from the service, also where it comes from npm
for (const name of npm ? [] : readdirSync(join(here, 'src/languages'))) {
  writeFileSync(join(target, name), JSON.stringify(JSON.parse(readFileSync(join(here, 'src/languages', name), 'utf8'))));
}
for (const name of readdirSync(target).sort()) console.log(join(target, name));

function sources(of) {
  return readdirSync(join(here, of))
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .map((name) => join(of, name));
}

/** A style sheet is imported as its text, for adoptedStyleSheets. */
function minifyCss(plugin) {
  plugin.onLoad({ filter: /\.css$/ }, async ({ path }) => {
    const made = await build({ entryPoints: [path], minify: true, charset: 'utf8', write: false, target: ['es2022'] });
    return { contents: made.outputFiles[0].text.trim(), loader: 'text' };
  });
}

/** A module of the package that imports another one does not contain it. */
function loadNeighbours(plugin) {
  plugin.onResolve({ filter: /\/entries\// }, ({ path }) => ({ path: path.replace(/.*\//, './'), external: true }));
}

/** Bundlers of hosts leave the module alone that is loaded from the service. */
function leaveImports(file) {
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.replace(/\bimport\((?=\w)/g, 'import(/* webpackIgnore: true */ /* @vite-ignore */ '));
}

/** Writes the types for hosts. The files import only each other, and the frameworks that they are for. */
function writeTypes() {
  const made = mkdtempSync(join(tmpdir(), 'tocsin-types-'));
  const tsc = join(here, 'node_modules/typescript/bin/tsc');
  const project = { extends: join(here, 'tsconfig.json'), include: [], files: [...types, 'src/css.d.ts'].map((file) => join(here, file)) };
  const declared = { noEmit: false, declaration: true, emitDeclarationOnly: true, rootDir: join(here, 'src'), outDir: made };
  writeFileSync(join(made, 'tsconfig.json'), JSON.stringify({ ...project, compilerOptions: declared }));
  execFileSync(process.execPath, [tsc, '--project', made], { stdio: 'inherit' });
  for (const source of types) {
    const name = source.replace('.ts', '.d.ts');
    const text = readFileSync(join(made, name.replace('src/', '')), 'utf8').replace(/'\.\.\/public\//g, "'./");
    writeFileSync(join(target, name.replace(/.*\//, '')), text);
  }
  rmSync(made, { recursive: true });
}
