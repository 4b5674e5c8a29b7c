// Meetings in the product's own pages.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings } from '../lib/browsers.mjs';
import { toneOf } from '../lib/media.mjs';
import { Attendee } from '../lib/meeting-page.mjs';
import { startProxy } from '../lib/proxy.mjs';
import { Server } from '../lib/server.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const suite = new Belongings();
let server;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
});
after(() => suite.closeAll());

async function meet(t, numbers, { from = server, link, ...options } = {}) {
  const own = new Belongings();
  t.after(() => own.closeAll());
  link ??= from.createMeeting().link;
  const people = [];
  for (const number of numbers) {
    const attendee = await Attendee.join(link, number, options);
    people.push(own.add(attendee, () => attendee.leave()));
  }
  return people;
}

/** Every attendee sees and hears every other. */
async function allSeeAndHearAll(people, patience = 45_000) {
  const identities = await Promise.all(people.map((p) => p.identity()));
  for (const receiver of people) {
    await untilValue(`${receiver.name} sees and hears all others`, () => receiver.received(), (received) =>
      people.every((p, i) => p === receiver
        || (received[identities[i]]?.number === p.number && Math.abs(received[identities[i]].hertz - toneOf(p.number)) < 20)),
    { patience });
  }
}

test('three people open the link and all see and hear all', { timeout: 180_000 }, async (t) => {
  await allSeeAndHearAll(await meet(t, [1, 6, 11]));
});

test('who switches the microphone off is silent for the others, and heard again after switching it on', { timeout: 150_000 }, async (t) => {
  const [speaker, listener] = await meet(t, [7, 2]);
  await allSeeAndHearAll([speaker, listener]);
  const identity = await speaker.identity();
  await speaker.press('mic');
  await untilValue('it is silent', () => listener.received(), (r) => r[identity]?.audioMuted === true);
  await speaker.press('mic');
  await allSeeAndHearAll([speaker, listener]);
});

test('a reloaded page is back in the meeting under the same identity', { timeout: 150_000 }, async (t) => {
  const [first, second] = await meet(t, [4, 13]);
  const identity = await first.identity();
  await first.page.reload();
  // The page may ask again for the device check, but not for the name.
  await until('the page is back', async () => {
    if (await first.shown('check-continue')) await first.press('check-continue');
    return first.page.evaluate(() => window.__terrace?.room?.state === 'connected').catch(() => false);
  }, { patience: 45_000, interval: 500 });
  assert.equal(await first.identity(), identity);
  await allSeeAndHearAll([first, second]);
});

test('a shared screen reaches the others', { timeout: 150_000 }, async (t) => {
  const [presenter, viewer] = await meet(t, [3, 8]);
  const identity = await presenter.identity();
  await presenter.press('share');
  await untilValue('the screen is decoded', () => viewer.inboundStats(identity, 'screen_share'), (s) => s?.framesDecoded > 0, { patience: 45_000 });
  await presenter.press('share');
  await untilValue('the screen is gone', () => viewer.inboundStats(identity, 'screen_share'), (s) => s === null);
});

test('when signalling is cut for ten seconds the page says so and media goes on', { timeout: 180_000 }, async (t) => {
  const proxy = await startProxy(server.port);
  t.after(() => proxy.close());
  const { code } = server.createMeeting();
  const [stays] = await meet(t, [5], { link: `${server.url}/m/${code}` });
  const [cut] = await meet(t, [10], { link: `http://127.0.0.1:${proxy.port}/m/${code}` });
  await allSeeAndHearAll([stays, cut]);
  const identity = await stays.identity();
  const before = (await cut.inboundStats(identity)).framesDecoded;
  proxy.cut();
  await until('the banner is shown', () => cut.shown('reconnect-banner'), { patience: 20_000 });
  await new Promise((done) => setTimeout(done, 10_000));
  assert.ok((await cut.inboundStats(identity)).framesDecoded > before + 50, 'the picture stood still while signalling was cut');
  proxy.mend();
  await until('the banner is gone', async () => !(await cut.shown('reconnect-banner')), { patience: 30_000 });
  await allSeeAndHearAll([stays, cut]);
});

test('who presses leave is gone for the others and sees why the meeting ended', { timeout: 120_000 }, async (t) => {
  const [leaves, stays] = await meet(t, [1, 2]);
  await leaves.press('leave');
  await until('the left page is shown', () => leaves.shown('left-reason'));
  await until('the other is alone', () => stays.page.evaluate(() => window.__terrace.room.remoteParticipants.size === 0));
});

test('pages come back by themselves when the server is ended and started anew', { timeout: 240_000 }, async (t) => {
  const own = await Server.start();
  t.after(() => own.stop());
  const people = await meet(t, [12, 3], { from: own });
  await allSeeAndHearAll(people);
  const begin = Date.now();
  const { code, signal } = await own.terminate();
  assert.ok(code === 0 || signal === 'SIGTERM', `the server ended with ${code ?? signal}`);
  await own.restart();
  await allSeeAndHearAll(people, 90_000);
  t.diagnostic(`all saw and heard each other ${Date.now() - begin} ms after SIGTERM`);
});

test('a meeting works over the certificate that the server makes itself', { timeout: 150_000 }, async (t) => {
  const own = await Server.start({ tls: true });
  t.after(() => own.stop());
  const { code } = own.createMeeting();
  await allSeeAndHearAll(await meet(t, [14, 5], { from: own, link: `${own.url}/m/${code}` }));
});
