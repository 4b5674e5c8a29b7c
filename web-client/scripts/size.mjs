// The size gate: what /join costs before anything is pressed (html + its scripts + its styles), gzip -9.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const GATE_KB = 90;
const dist = new URL('../dist/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('.vite/manifest.json', dist), 'utf8'));
const packed = (file) => gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length / 1000;

/** The files of one entry with everything it imports at once, without the lazily loaded. */
function filesOf(key, seen = new Set()) {
  const chunk = manifest[key];
  if (!chunk || seen.has(chunk.file)) return seen;
  seen.add(chunk.file);
  for (const css of chunk.css ?? []) seen.add(css);
  for (const next of chunk.imports ?? []) filesOf(next, seen);
  return seen;
}

const first = ['index.html', ...filesOf('index.html')];
let total = 0;
for (const file of first) {
  total += packed(file);
  console.log(`${packed(file).toFixed(1).padStart(7)} kB  ${file}`);
}
const all = new Set(Object.keys(manifest).flatMap((key) => [...filesOf(key)]));
const later = [...all].filter((file) => !first.includes(file));
for (const file of later) console.log(`${packed(file).toFixed(1).padStart(7)} kB  ${file}  (later)`);
console.log(`first page ${total.toFixed(1)} kB gzip, gate ${GATE_KB} kB`);
if (total > GATE_KB) process.exit(1);
