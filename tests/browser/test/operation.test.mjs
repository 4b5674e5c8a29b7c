// What whoever operates a node does with it while people are in meetings.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings } from '../lib/browsers.mjs';
import { toneOf } from '../lib/media.mjs';
import { Attendee } from '../lib/meeting-page.mjs';
import { Server } from '../lib/server.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const suite = new Belongings();
let server;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
});
after(() => suite.closeAll());

async function come(t, link, number) {
  const attendee = await Attendee.join(link, number);
  t.after(() => attendee.leave());
  return attendee;
}

/** Asks the meeting door. */
async function ask(from, path, { language = 'zh-CN', ...options } = {}) {
  const answer = await fetch(`${from.url}/api/meetings/${path}`, { headers: { 'accept-language': language, 'content-type': 'application/json' }, ...options });
  return { status: answer.status, retryAfter: Number(answer.headers.get('retry-after')), ...(await answer.json()) };
}

const join = (name) => ({ method: 'POST', body: JSON.stringify({ name }) });

test('a meeting ended on the command line sends people away with the right words, and lets nobody in', { timeout: 120_000 }, async (t) => {
  const { code, link } = server.createMeeting('防汛例会');
  const other = server.createMeeting('值班会');
  const person = await come(t, link, 1);
  const stays = await come(t, other.link, 2);
  const listed = server.command('meeting', 'list', '--dev');
  assert.match(listed, /防汛例会/);
  assert.ok(listed.includes(link), 'the list has no link');
  assert.match(server.command('meeting', 'end', '--dev', code), /Ended/);
  await until('the page says that the meeting has ended', () => person.shown('left-reason'));
  assert.equal(await person.page.locator('[data-testid="left"]').getAttribute('data-reason'), 'ended');
  assert.match(await person.page.locator('[data-testid="left"]').innerText(), /会议已结束[\s\S]*会议已于 \d{2}:\d{2} 结束/);
  assert.ok(await stays.page.evaluate(() => window.__terrace.room.state === 'connected'), 'another meeting ended with it');
  assert.ok(!server.command('meeting', 'list', '--dev').includes(code), 'it is still listed');
  const late = await ask(server, `${code}/join`, join('李秀英'));
  assert.equal(late.status, 410);
  assert.equal(late.code, 'meeting_ended');
  assert.match(late.detail, /已经结束/);
  assert.match((await ask(server, code, { language: 'en' })).detail, /over/);
  assert.throws(() => server.command('meeting', 'end', '--dev', code), /no running meeting has this code/);
});

test('a meeting with an end ends by itself', { timeout: 120_000 }, async (t) => {
  const { link } = server.createMeeting('短会', '--for', '20s');
  const person = await come(t, link, 3);
  await until('the page says that the meeting has ended', () => person.shown('left-reason'), { patience: 40_000 });
  assert.equal(await person.page.locator('[data-testid="left"]').getAttribute('data-reason'), 'ended');
});

/** The exposition format of Prometheus, version 0.0.4, as far as it is used: name → value. */
function parseMetrics(text) {
  const values = new Map();
  const told = new Map();
  for (const line of text.trimEnd().split('\n')) {
    const comment = line.match(/^# (HELP|TYPE) ([a-z][a-z0-9_]*) (.+)$/);
    if (comment) {
      const [, kind, name, words] = comment;
      const about = told.get(name) ?? {};
      assert.equal(about[kind], undefined, `${kind} of ${name} stands there twice`);
      told.set(name, { ...about, [kind]: words });
      continue;
    }
    const sample = line.match(/^([a-z][a-z0-9_]*) (\d+(?:\.\d+)?)$/);
    assert.ok(sample, `not a line of the format: ${line}`);
    const [, name, value] = sample;
    assert.ok(told.get(name)?.HELP, `${name} has no HELP before it`);
    assert.match(told.get(name).TYPE, /^(gauge|counter)$/);
    assert.equal(name.endsWith('_total'), told.get(name).TYPE === 'counter', `the name of ${name} does not fit its type`);
    assert.ok(name.startsWith('terrace_'));
    assert.ok(!values.has(name), `${name} stands there twice`);
    values.set(name, Number(value));
  }
  assert.ok(text.endsWith('\n'), 'the last line does not end');
  return values;
}

test('the metrics are valid and count what happens', { timeout: 120_000 }, async (t) => {
  const own = await Server.start();
  t.after(() => own.stop());
  const metrics = async () => {
    const answer = await fetch(`${own.metricsUrl}/metrics`);
    assert.match(answer.headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
    return parseMetrics(await answer.text());
  };
  const before = await metrics();
  assert.equal(before.get('terrace_participants'), 0);
  const { link } = own.createMeeting();
  const person = await come(t, link, 4);
  await come(t, link, 5);
  await untilValue('two participants with two tracks each, received by the other', metrics, (m) =>
    m.get('terrace_rooms') === 1 && m.get('terrace_participants') === 2 && m.get('terrace_tracks') === 4
    && m.get('terrace_media_subscriptions') === 4 && m.get('terrace_joins_total') === 2
    && m.get('terrace_media_bytes_out_total') > 10_000);
  await person.press('leave');
  await untilValue('one is left', metrics, (m) => m.get('terrace_participants') === 1 && m.get('terrace_tracks') === 2);
  assert.equal((await fetch(`${own.url}/metrics`)).headers.get('content-type')?.startsWith('text/html'), true, 'the public address serves metrics');
});

test('a node that is told to end is not ready, lets nobody in and says so, while it lives', { timeout: 60_000 }, async (t) => {
  const own = await Server.start();
  t.after(() => own.stop());
  const { code } = own.createMeeting();
  assert.equal((await fetch(`${own.metricsUrl}/readyz`)).status, 200);
  const ended = own.terminate();
  const ready = await untilValue('it says that it is draining', async () => {
    const answer = await fetch(`${own.metricsUrl}/readyz`).catch(() => null);
    return answer && { status: answer.status, words: await answer.text() };
  }, (answer) => answer?.status === 503, { interval: 10, patience: 5000 });
  assert.equal(ready.words, 'draining');
  const refused = await ask(own, `${code}/join`, join('王建国'));
  assert.equal(refused.status, 503);
  assert.equal(refused.code, 'draining');
  assert.match(refused.detail, /重启/);
  assert.ok(refused.retryAfter > 0);
  const { code: exit, signal } = await ended;
  assert.ok(exit === 0, `the server ended with ${exit ?? signal}`);
});

test('who guesses codes must wait, and is told so in words', { timeout: 90_000 }, async (t) => {
  const own = await Server.start();
  t.after(() => own.stop());
  const { code } = own.createMeeting();
  let tries = 0;
  let answer;
  do {
    answer = await ask(own, String(1_000_000_000 + tries));
    tries += 1;
  } while (answer.status === 404 && tries < 100);
  assert.equal(tries, 21, 'the bound is twenty wrong codes');
  assert.equal(answer.status, 429);
  assert.equal(answer.code, 'too_many_attempts');
  assert.match(answer.detail, /错误的会议号输入过多/);
  assert.match((await ask(own, '1234567890', { language: 'en' })).detail, /Too many wrong codes/);
  assert.ok(answer.retryAfter > 200 && answer.retryAfter <= 300);
  // The right one must not be told apart from wrong ones now.
  assert.equal((await ask(own, code)).status, 429);
  const browser = await Attendee.open(`${own.url}/join`, 1);
  t.after(() => browser.leave());
  await browser.page.locator('[data-testid="join-name"]').fill('孙晓梅');
  await browser.page.locator('[data-testid="join-code"]').fill('9999999999');
  await browser.press('join-submit');
  await untilValue('the page says so', () => browser.page.locator('[data-testid="join-error"]').innerText(), (words) =>
    /试的次数太多了/.test(words) && /还有 \d+ 秒/.test(words));
});

test('a meeting over IPv6 alone', { timeout: 120_000 }, async (t) => {
  const own = await Server.start({ ipv6: true });
  t.after(() => own.stop());
  const { link } = own.createMeeting();
  assert.ok(link.startsWith('http://[::1]:'), `the link is ${link}`);
  const people = [await come(t, link, 9), await come(t, link, 6)];
  const identities = await Promise.all(people.map((person) => person.identity()));
  for (const [index, person] of people.entries()) {
    const other = people[1 - index];
    await untilValue(`${person.name} sees and hears the other`, () => person.received(), (received) => {
      const seen = received[identities[1 - index]];
      return seen?.number === other.number && Math.abs(seen.hertz - toneOf(other.number)) < 20;
    });
  }
  const pairs = await people[0].page.evaluate(async () => {
    const { publisher, subscriber } = window.__terrace.room.engine.pcManager;
    const found = [];
    for (const transport of [publisher, subscriber]) {
      const report = await transport?.getStats?.();
      for (const stat of report?.values() ?? []) if (stat.type === 'candidate-pair' && stat.nominated) found.push(report.get(stat.remoteCandidateId).address);
    }
    return found;
  });
  assert.ok(pairs.length > 0 && pairs.every((address) => address.includes(':')), `media goes to ${pairs}`);
});
