// Builds each entry of src/entries into one ES module, and each file of src/public into its types:
// `node build.mjs FOLDER`. The same sources give the same bytes; modules and types without a source are removed.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const folder = resolve(process.argv[2] ?? 'dist');
const entries = sources('src/entries');

mkdirSync(folder, { recursive: true });
for (const name of readdirSync(folder)) if (/\.(js|d\.ts)$/.test(name)) rmSync(join(folder, name));
await build({
  absWorkingDir: here,
  entryPoints: entries,
  outdir: folder,
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['es2022'],
  charset: 'utf8',
  legalComments: 'none',
  loader: { '.css': 'text' },
  plugins: [{ name: 'small css', setup: minifyCss }],
  logLevel: 'warning',
});
writeTypes();
for (const name of readdirSync(folder).sort()) console.log(join(folder, name));

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

/** Writes the types of the files in src/public for hosts; these import nothing, so they are self-contained. */
function writeTypes() {
  const made = mkdtempSync(join(tmpdir(), 'tocsin-types-'));
  const tsc = join(here, 'node_modules/typescript/bin/tsc');
  const options = ['--ignoreConfig', '--declaration', '--emitDeclarationOnly', '--strict', '--target', 'ES2022'];
  const files = sources('src/public');
  execFileSync(process.execPath, [tsc, ...options, '--outDir', made, ...files], { cwd: here, stdio: 'inherit' });
  for (const name of readdirSync(made).sort()) {
    writeFileSync(join(folder, basename(name)), readFileSync(join(made, name), 'utf8'));
  }
  rmSync(made, { recursive: true });
}
