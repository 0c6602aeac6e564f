// Writes ../static/app.js, app.css and LICENSES.txt; the same bytes each time.
import * as esbuild from 'esbuild';
import {readFileSync, writeFileSync, mkdirSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, '..', 'static');

const result = await esbuild.build({
  absWorkingDir: here,
  entryPoints: {app: 'src/main.ts'},
  outdir: out,
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['es2022'],
  charset: 'ascii',
  legalComments: 'none',
  metafile: true,
  write: false,
});

mkdirSync(out, {recursive: true});
for (const file of result.outputFiles) {
  const text = file.text;
  // The page inlines both files; none of these may end or confuse an element.
  if (/<\/(script|style)|<!--/i.test(text)) {
    throw new Error(`${file.path}: contains </script, </style or <!--`);
  }
  writeFileSync(file.path, text);
}

const packages = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const match = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (match) packages.add(match[1]);
}
const sections = [...packages].sort().map((name) => {
  const folder = join(here, 'node_modules', name);
  const {version, license} = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  );
  const text = readFileSync(join(folder, 'LICENSE'), 'utf8').trim();
  return `${name} ${version} (${license})\n\n${text}\n`;
});
writeFileSync(
  join(out, 'LICENSES.txt'),
  'Libraries in app.js and app.css\n\n' +
    sections.join(`\n${'-'.repeat(72)}\n\n`),
);
