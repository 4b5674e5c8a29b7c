// Insecure settings: the server does not start with them, and says what to do.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { cleanEnvironment, freeTcpPort, freeUdpPort, terraceBinary } from '../lib/server.mjs';

const GOOD_SECRET = 'q8Zr2vXk7Lw9Tn4Bc6Ym1Pd3Hf5Js0Ga';

/** How long a server that should refuse to start may take, in milliseconds. */
const REFUSES_WITHIN = 10_000;

const folder = mkdtempSync(join(tmpdir(), 'terrace-settings-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const [http, metrics, udp] = [await freeTcpPort(), await freeTcpPort(), await freeUdpPort()];

/** A file in the folder of this run. */
function write(name, contents, mode = 0o600) {
  const file = join(folder, name);
  writeFileSync(file, contents);
  chmodSync(file, mode);
  return file;
}

/** A configuration that is safe; `change` makes it otherwise. */
function configuration({ listen = `127.0.0.1:${http}`, httpMore = '', tls = 'mode = "off"', media = `["127.0.0.1:${udp}"]`, keys = { app: GOOD_SECRET }, top = '', data = 'data' } = {}) {
  const lines = Object.entries(keys).map(([key, secret]) => `${key} = "${secret}"`);
  return `data_dir = "${join(folder, data)}"\n${top}\n[http]\nlisten = "${listen}"\n${httpMore}\n[tls]\n${tls}\n`
    + `[media]\nlisten = ${media}\n[metrics]\nlisten = "127.0.0.1:${metrics}"\n[keys]\n${lines.join('\n')}\n`;
}

function terrace(words, environment = {}) {
  const { status, stdout, stderr, error } = spawnSync(terraceBinary(), words, {
    cwd: folder, env: { ...cleanEnvironment(), ...environment }, encoding: 'utf8', timeout: REFUSES_WITHIN, killSignal: 'SIGKILL',
  });
  assert.equal(error, undefined, `terrace ${words.join(' ')} did not end by itself:\n${stdout}\n${stderr}`);
  return { status, stdout, stderr: stderr.replace(/\s+/g, ' ') };
}

/** Each: what is wrong, the configuration, and what must be said about it. */
const REFUSED = [
  ['a secret that stands in every example', { keys: { app: 'secret' } }, /keys\.app: this key or its secret is known to everybody\. Make a secret with `openssl rand -base64 48`/],
  ['a long secret that stands in documentation', { keys: { app: 'abcdefghijklmnopqrstuvwxyz012345' } }, /keys\.app: this key or its secret is known to everybody/],
  ["the developers' key with another secret", { keys: { devkey: GOOD_SECRET } }, /keys\.devkey: this key or its secret is known to everybody/],
  ['a short secret', { keys: { app: 'only-twenty-six-characters' } }, /keys\.app: the secret has fewer than 32 characters/],
  ["the name of the server's own key", { keys: { 'terrace-meetings': GOOD_SECRET } }, /keys\.terrace-meetings: this name is the server's own/],
  ['plain HTTP on an address that others can reach', { listen: `0.0.0.0:${http}` }, /tls\.mode = "off" with http\.listen = "0\.0\.0\.0:\d+": access tokens would go over the network in the clear.* Set tls\.mode to "files" or "self-made"/],
  ['plain HTTP on an address of the network', { listen: `192.0.2.1:${http}` }, /access tokens would go over the network in the clear/],
  ['a proxy that is not named', { listen: `0.0.0.0:${http}`, httpMore: 'behind_proxy = true' }, /http\.behind_proxy = true needs http\.trusted_proxies/],
  ['a certificate that is not named', { tls: 'mode = "files"' }, /tls\.mode = "files" needs tls\.certificate and tls\.key/],
  ['a certificate that is not there', { tls: 'mode = "files"\ncertificate = "/none/chain.pem"\nkey = "/none/key.pem"' }, /tls\.certificate \/none\/chain\.pem: No such file.* tls\.key: the private key \/none\/key\.pem can't be read/],
  ['no address for media', { media: '[]' }, /media\.listen: at least one UDP address is needed/],
  ['an address for people that is none', { top: 'public_url = "meet.example.gov.cn"' }, /public_url must begin with https:\/\//],
  ['a setting that does not exist', { httpMore: 'listen_on = 1' }, /listen_on/],
];

describe('a server does not start with', () => {
  for (const [what, change, words] of REFUSED) {
    test(what, () => {
      const file = write('terrace.toml', configuration(change));
      for (const check of [[], ['--check']]) {
        const { status, stderr, stdout } = terrace(['serve', '--config', file, ...check]);
        assert.equal(status, 1, `serve ${check} ended with ${status}`);
        assert.match(stderr, words);
        assert.ok(!(stdout + stderr).includes(GOOD_SECRET), 'a secret was printed');
      }
    });
  }

  test('secrets in a file that every user of the machine may read', () => {
    const file = write('terrace.toml', configuration(), 0o644);
    const { status, stderr } = terrace(['serve', '--config', file]);
    assert.equal(status, 1);
    assert.match(stderr, /the configuration file with API secrets .*terrace\.toml may be read by every user of this machine.* Run `chmod 600/);
  });

  test("a certificate's key that every user of the machine may read", () => {
    const certificate = write('chain.pem', 'not read before the key is refused');
    const key = write('key.pem', 'neither', 0o644);
    const file = write('terrace.toml', configuration({ tls: `mode = "files"\ncertificate = "${certificate}"\nkey = "${key}"` }));
    const { status, stderr } = terrace(['serve', '--config', file]);
    assert.equal(status, 1);
    assert.match(stderr, /tls\.key: the private key .*key\.pem may be read by every user/);
  });

  test("a key of its own that every user of the machine may read", () => {
    const file = write('terrace.toml', configuration({ data: 'open' }));
    assert.equal(terrace(['meeting', 'list', '--config', file]).status, 0);
    write('open/meetings.key', GOOD_SECRET, 0o644);
    const { status, stderr } = terrace(['serve', '--config', file]);
    assert.equal(status, 1);
    assert.match(stderr, /the key of meetings .*meetings\.key may be read by every user/);
  });

  test('a weak secret in a variable', () => {
    const file = write('terrace.toml', configuration());
    const { status, stderr } = terrace(['serve', '--config', file], { TERRACE_KEYS__HALL: 'secret' });
    assert.equal(status, 1);
    assert.match(stderr, /keys\.hall: this key or its secret is known to everybody/);
  });

  test('a configuration file that is not there', () => {
    const { status, stderr } = terrace(['serve', '--config', join(folder, 'none.toml')]);
    assert.equal(status, 1);
    assert.match(stderr, /the configuration file .*none\.toml is not there/);
  });
});

test('all faults are told at once', () => {
  const file = write('terrace.toml', configuration({ listen: `0.0.0.0:${http}`, keys: { app: 'secret', hall: 'short' } }));
  const { stderr } = terrace(['serve', '--config', file]);
  assert.match(stderr, /keys\.app.*keys\.hall.*tls\.mode/);
});

test('safe settings are explained, and secrets are not shown', () => {
  const file = write('terrace.toml', configuration());
  const { status, stdout } = terrace(['serve', '--config', file, '--check']);
  assert.equal(status, 0);
  assert.match(stdout, /These settings can be run with\./);
  assert.match(stdout, new RegExp(`http\\.listen = "127\\.0\\.0\\.1:${http}"`));
  assert.ok(!stdout.includes(GOOD_SECRET), 'a secret was printed');
});
