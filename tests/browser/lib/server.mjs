// Starts the real `terrace` binary on free ports with a data folder of its own, and ends it again.
//
// Invariant: whatever a test does, the process it started is gone when the test file ends.

import { spawn, execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './waiting.mjs';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');

/** The key pair that `--dev` brings. */
export const DEV_KEY = 'devkey';
export const DEV_SECRET = 'secret';

/** Where cargo builds. */
export function buildFolder() {
  return process.env.CARGO_TARGET_DIR ?? join(repository, 'target');
}

/** A binary of ours: what `variable` names, else the newest of the usual places. */
function binary(name, variable) {
  if (process.env[variable]) return process.env[variable];
  const target = buildFolder();
  const found = ['release', 'debug'].map((profile) => join(target, profile, name)).find(existsSync);
  if (!found) throw new Error(`no ${name} binary under ${target}: run "cargo build --release --bin ${name}" first`);
  return found;
}

/** The binary under test. */
export const terraceBinary = () => binary('terrace', 'TERRACE_BIN');

/** The program that makes lines. */
export const lineBinary = () => binary('line', 'LINE_BIN');

/** A TCP port that was free a moment ago. */
export function freeTcpPort(host = '127.0.0.1') {
  return new Promise((done, failed) => {
    const probe = createServer();
    probe.once('error', failed);
    probe.listen(0, host, () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

/** A UDP port that was free a moment ago. */
export function freeUdpPort(host = '127.0.0.1') {
  return new Promise((done, failed) => {
    const probe = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    probe.once('error', failed);
    probe.bind(0, host, () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

/** The environment without settings of whoever runs the tests: they must not reach the server under test. */
export function cleanEnvironment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TERRACE_')));
}

/** A server under test. `restart` keeps ports and data. */
export class Server {
  static async start(options = {}) {
    // For working on the tests themselves: an already running server that speaks the same protocol.
    if (process.env.TERRACE_TEST_URL) {
      const server = new Server();
      server.url = process.env.TERRACE_TEST_URL;
      return server;
    }
    const server = new Server();
    const local = options.ipv6 ? '::1' : '127.0.0.1';
    const host = options.host ?? local;
    server.data = mkdtempSync(join(tmpdir(), 'terrace-test-'));
    server.port = await freeTcpPort(local);
    server.udpPort = await freeUdpPort(local);
    server.metricsPort = await freeTcpPort(local);
    server.tls = options.tls ?? false;
    server.host = options.ipv6 ? `[${host}]` : host;
    server.url = `${server.tls ? 'https' : 'http'}://${server.host}:${server.port}`;
    server.metricsUrl = `http://${server.host}:${server.metricsPort}`;
    server.extraEnvironment = options.environment ?? {};
    server.wrap = options.wrap ?? [];
    /** Where it listens. */
    server.listen = options.everywhere ? '0.0.0.0' : server.host;
    await server.#spawn();
    return server;
  }

  environment() {
    return {
      ...cleanEnvironment(),
      TERRACE_HTTP__LISTEN: `${this.listen}:${this.port}`,
      TERRACE_METRICS__LISTEN: `${this.host}:${this.metricsPort}`,
      // Firefox sends nothing to a server that has a loopback address alone.
      TERRACE_MEDIA__LISTEN: this.host === '127.0.0.1' ? `127.0.0.1:${this.udpPort},0.0.0.0:${this.udpPort}` : `${this.listen}:${this.udpPort}`,
      // One port; rooms on several shards are what the tests in Python have.
      TERRACE_MEDIA__SHARDS: '1',
      TERRACE_DATA_DIR: this.data,
      ...(this.tls ? { TERRACE_TLS__MODE: 'self-made' } : {}),
      ...this.extraEnvironment,
    };
  }

  async #spawn() {
    this.log = '';
    const [program, ...words] = [...this.wrap, terraceBinary(), 'serve', '--dev'];
    this.process = spawn(program, words, {
      env: this.environment(),
      cwd: this.data,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const keep = (chunk) => {
      this.log = (this.log + chunk).slice(-200_000);
    };
    this.process.stdout.on('data', keep);
    this.process.stderr.on('data', keep);
    this.exited = new Promise((done) => this.process.once('exit', (code, signal) => done({ code, signal })));
    await until(`terrace is ready on ${this.metricsUrl}`, async () => {
      if (this.process.exitCode !== null) throw new Error(`terrace ended with ${this.process.exitCode}:\n${this.log}`);
      return (await fetch(`${this.metricsUrl}/readyz`).catch(() => null))?.ok;
    });
  }

  /** Asks the process to end as a service manager would, and waits for it. */
  async terminate() {
    if (!this.process) return undefined;
    this.process.kill('SIGTERM');
    const impatience = setTimeout(() => this.process.kill('SIGKILL'), 30_000);
    const how = await this.exited;
    clearTimeout(impatience);
    return how;
  }

  /** A new process on the ports and data of the old one. */
  async restart() {
    await this.terminate();
    await this.#spawn();
  }

  async stop() {
    if (!this.process) return;
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGKILL');
    await this.exited;
    rmSync(this.data, { recursive: true, force: true });
  }

  /** Runs a `terrace` command against this server's configuration and returns what it printed. */
  command(...words) {
    return execFileSync(terraceBinary(), words, { env: this.environment(), cwd: this.data, encoding: 'utf8' });
  }

  /** Makes a meeting and returns its link and ten-digit code. */
  createMeeting(name = '例会', ...options) {
    const printed = this.command('meeting', 'create', '--dev', '--name', name, ...options);
    const code = printed.match(/\b(\d{3})-(\d{3})-(\d{4})\b/)?.slice(1).join('');
    const link = printed.match(/https?:\/\/\S+\/m\/\d{10}/)?.[0];
    if (!code || !link) throw new Error(`no code or link in what "terrace meeting create" printed:\n${printed}`);
    return { code, link };
  }

  /** The WebSocket address for SDKs. */
  get socketUrl() {
    return this.url.replace(/^http/, 'ws');
  }
}

const base64url = (value) => Buffer.from(value).toString('base64url');

/** A join token as the LiveKit SDKs make it. */
export function token({ room, identity, name = identity, grants = {}, lifetime = 3600, secret = DEV_SECRET, key = DEV_KEY }) {
  const now = Math.floor(Date.now() / 1000);
  const header = base64url(JSON.stringify({ alg: 'HS256', typ: 'JWT' }));
  const claims = base64url(
    JSON.stringify({
      iss: key,
      sub: identity,
      name,
      nbf: now - 5,
      exp: now + lifetime,
      video: { roomJoin: true, room, canPublish: true, canSubscribe: true, canPublishData: true, canUpdateOwnMetadata: true, ...grants },
    }),
  );
  const signature = createHmac('sha256', secret).update(`${header}.${claims}`).digest('base64url');
  return `${header}.${claims}.${signature}`;
}
