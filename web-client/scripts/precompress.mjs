// Puts a .br and a .gz beside every text file of dist/, so that the server never compresses while people wait.
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const TEXT = /\.(html|js|mjs|css|svg|json|txt|map|webmanifest)$/;
const dist = new URL('../dist', import.meta.url).pathname;
// The manifest is for `npm run size` and is not to be served.
let before = 0;
let after = 0;
for (const name of readdirSync(dist, { recursive: true })) {
  const path = join(dist, String(name));
  if (!statSync(path).isFile() || !TEXT.test(path) || path.includes('/.vite/')) continue;
  const bytes = readFileSync(path);
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
  const gzip = gzipSync(bytes, { level: 9 });
  for (const [ending, packed] of [['.br', brotli], ['.gz', gzip]]) {
    if (packed.length < bytes.length) writeFileSync(path + ending, packed);
    else rmSync(path + ending, { force: true });
  }
  before += bytes.length;
  after += brotli.length;
}
console.log(`precompressed: ${(before / 1000).toFixed(1)} kB → ${(after / 1000).toFixed(1)} kB brotli`);
