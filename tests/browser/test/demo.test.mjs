// `cargo xtask demo`, as a new user would try it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { dirname, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Attendee } from '../lib/meeting-page.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');

/** A first build on a small machine. */
const BUILD_PATIENCE = 1_800_000;

function answers(port) {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => done(true)).once('error', () => done(false));
    socket.once('connect', () => socket.destroy());
  });
}

test('the demo prints a link, two tabs meet through it, and Ctrl-C ends everything', { timeout: BUILD_PATIENCE + 120_000 }, async (t) => {
  assert.ok(!(await answers(7880)), 'something listens on port 7880 already: end it first');
  const begin = Date.now();
  // A process group of its own, to which Ctrl-C is sent as a terminal would.
  const demo = spawn('cargo', ['xtask', 'demo'], { cwd: repository, detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => {
    if (demo.exitCode === null && demo.signalCode === null) process.kill(-demo.pid, 'SIGKILL');
  });
  const ended = once(demo, 'exit');
  let printed = '';
  demo.stdout.on('data', (chunk) => (printed += chunk));
  await until('the demo prints that it is ready', () => {
    assert.equal(demo.exitCode, null, `the demo ended:\n${printed}`);
    return printed.includes('Ctrl-C ends the demo');
  }, { patience: BUILD_PATIENCE });
  t.diagnostic(`ready ${Date.now() - begin} ms after the command`);

  const link = printed.match(/https?:\/\/\S+\/m\/\d{10}/)?.[0];
  assert.ok(link, `no link in what the demo printed:\n${printed}`);
  const first = await Attendee.join(link, 6, { name: '王建国' });
  t.after(() => first.leave());
  const second = await first.anotherTab(link, { name: '李秀英' });
  const [one, two] = [await first.identity(), await second.identity()];
  // Both tabs have the browser's one camera, so both show its number.
  await untilValue('the first tab sees the second', () => first.received(), (r) => r[two]?.number === 6);
  await second.page.bringToFront();
  await untilValue('the second tab sees the first', () => second.received(), (r) => r[one]?.number === 6);
  t.diagnostic(`two tabs saw each other ${Date.now() - begin} ms after the command`);

  process.kill(-demo.pid, 'SIGINT');
  const [code] = await ended;
  assert.equal(code, 0, `the demo ended with ${code}:\n${printed}`);
  assert.ok(!(await answers(7880)), 'the server outlives the demo');
});
