// WHIP and WHEP with the browser's own RTCPeerConnection and fetch, from a page of another origin.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Belongings, Participant, serveHarness, startChromium } from '../lib/browsers.mjs';
import { toneOf } from '../lib/media.mjs';
import { Server, token } from '../lib/server.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const script = join(dirname(fileURLToPath(import.meta.url)), '../harness/whip.js');
const suite = new Belongings();
let server;
let harness;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
  harness = suite.add(await serveHarness());
});
after(() => suite.closeAll());

/** A page that speaks WHIP and WHEP; closed when the test ends. */
async function page(own, number, camera) {
  const browser = own.add(await startChromium(number, camera));
  const opened = await (await browser.newContext()).newPage();
  opened.setDefaultTimeout(60_000);
  await opened.goto(harness.url);
  await opened.addScriptTag({ path: script });
  return opened;
}

async function encoder(own, room, identity, number, { camera, ...options } = {}) {
  const opened = await page(own, number, camera);
  await opened.evaluate((o) => window.whip.publish(o), { url: `${server.url}/whip/${room}`, bearer: token({ room, identity }), ...camera, ...options });
  return opened;
}

async function player(own, room, identity, participants) {
  const opened = await page(own, 1);
  const query = participants ? `?participants=${participants.join(',')}` : '';
  await opened.evaluate((o) => window.whip.watch(o), {
    url: `${server.url}/whep/${room}${query}`, bearer: token({ room, identity }), pairs: participants?.length ?? 1,
  });
  return opened;
}

const is = (place, number) => place?.number === number && Math.abs(place.hertz - toneOf(number)) < 20;
const watched = (opened) => () => opened.evaluate(() => window.whip.watched(1000));

function belongings(t) {
  const own = new Belongings();
  t.after(() => own.closeAll());
  return own;
}

test('an encoder is seen and heard by players and by participants, in the order asked for', { timeout: 150_000 }, async (t) => {
  const own = belongings(t);
  const room = 'whip-whep';
  const watching = await player(own, room, 'watching', ['person', 'studio']);
  const studio = await encoder(own, room, 'studio', 9, { codec: 'h264' });
  const person = own.add(await Participant.join({ server, harnessUrl: harness.url, room, number: 6, identity: 'person' }), () => person.leave());
  await untilValue('both places show theirs', watched(watching), ([first, second]) => is(first, 6) && is(second, 9), { patience: 60_000 });
  await untilValue('the participant sees and hears the encoder', () => person.received(1000), (received) => is(received.studio, 9));
  assert.equal(await studio.evaluate(() => window.whip.end(window.encoder)), 200);
  await until('the encoder is gone', () => person.evaluate(() => !window.room.remoteParticipants.has('studio')));
  assert.equal(await watching.evaluate(() => window.whip.end(window.player)), 200);
});

test('without a list the picture follows the speaker in one stream, without a second offer', { timeout: 180_000 }, async (t) => {
  const own = belongings(t);
  const room = 'whep-speaker';
  const people = new Map();
  for (const [identity, number] of [['ana', 5], ['bo', 10]]) {
    people.set(number, await encoder(own, room, identity, number));
    await people.get(number).evaluate(() => { window.encoder.microphone.enabled = false; });
  }
  const watching = await player(own, room, 'watching');
  const seen = new Set();
  for (const number of [5, 10, 5]) {
    await people.get(number).evaluate(() => { window.encoder.microphone.enabled = true; });
    await untilValue(`${number} is seen and heard`, watched(watching), ([place]) => is(place, number), { patience: 40_000 });
    seen.add((await watching.evaluate(() => window.whip.inbound())).ssrc);
    await people.get(number).evaluate(() => { window.encoder.microphone.enabled = false; });
    await untilValue('silence is heard', watched(watching), ([place]) => place.hertz === null);
    assert.equal((await watched(watching)())[0].number, number, 'the last speaker stays while nobody speaks');
  }
  assert.equal(seen.size, 1, 'one stream');
});

test('an encoder with simulcast gives each viewer the layer for its size', { timeout: 150_000 }, async (t) => {
  const own = belongings(t);
  const room = 'whip-simulcast';
  const layers = [
    { rid: 'low', scaleResolutionDownBy: 4, maxBitrate: 100_000 },
    { rid: 'mid', scaleResolutionDownBy: 2, maxBitrate: 300_000 },
    { rid: 'high', maxBitrate: 1_200_000 },
  ];
  await encoder(own, room, 'studio', 9, { codec: 'vp8', layers, camera: { width: 1280, height: 720, rate: 15 } });
  const person = own.add(await Participant.join({ server, harnessUrl: harness.url, room, number: 6, identity: 'person', camera: false, microphone: false }), () => person.leave());
  const height = () => person.inboundStats('studio').then((stats) => stats?.frameHeight ?? 0);
  await untilValue('the best layer comes', height, (h) => h === 720, { patience: 60_000 });
  await person.evaluate(() => window.room.remoteParticipants.get('studio').getTrackPublication('camera').setVideoQuality(0));
  await untilValue('the lowest layer comes', height, (h) => h === 180, { patience: 30_000 });
});

test('candidates are trickled and ICE is restarted while the picture goes on', { timeout: 150_000 }, async (t) => {
  const own = belongings(t);
  const room = 'whip-restart';
  const studio = await encoder(own, room, 'studio', 9);
  const watching = await player(own, room, 'watching', ['studio']);
  await untilValue('it is seen and heard', watched(watching), ([place]) => is(place, 9), { patience: 60_000 });
  for (const [opened, name] of [[studio, 'encoder'], [watching, 'player']]) {
    assert.equal(await opened.evaluate((n) => window.whip.trickle(window[n]), name), 204);
    assert.deepEqual(await opened.evaluate((n) => window.whip.restart(window[n]), name), { status: 200, isNewTag: true, isNewSession: true });
    const { frames } = await watching.evaluate(() => window.whip.inbound());
    await untilValue(`the picture goes on after the ${name}'s restart`, () => watching.evaluate(() => window.whip.inbound()), (now) => now.frames > frames + 40);
    assert.equal(await opened.evaluate((n) => window[n].pc.connectionState, name), 'connected');
  }
});

test('a refusal can be read from a page of another origin', { timeout: 60_000 }, async (t) => {
  const own = belongings(t);
  const opened = await page(own, 1);
  const problem = await opened.evaluate(async (url) => {
    const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp', authorization: 'Bearer x' }, body: 'v=0' });
    return { status: response.status, challenge: response.headers.get('www-authenticate'), body: await response.json() };
  }, `${server.url}/whip/somewhere`);
  assert.equal(problem.status, 401);
  assert.match(problem.challenge, /invalid_token/);
  assert.equal(problem.body.code, 'no_access');
});
