// What travels between participants, without the product's pages: the harness page is the client.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { toneOf } from '../lib/media.mjs';
import { startProxy } from '../lib/proxy.mjs';
import { Server } from '../lib/server.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const suite = new Belongings();
let server;
let harness;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
  harness = suite.add(await serveHarness());
});
after(() => suite.closeAll());

/** Joins one participant per description into one room; all are closed when the test ends. */
async function meet(t, room, descriptions) {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const participants = [];
  for (const description of descriptions) {
    const participant = await Participant.join({ server, harnessUrl: harness.url, room, ...description });
    participants.push(own.add(participant, () => participant.leave()));
  }
  return participants;
}

const seesAndHears = (number) => (received) =>
  received?.number === number && Math.abs(received.hertz - toneOf(number)) < 20;

/** Every participant sees and hears every other. */
async function allSeeAndHearAll(participants) {
  for (const receiver of participants) {
    await untilValue(`${receiver.identity} sees and hears all others`, () => receiver.received(1000), (received) =>
      participants.filter((p) => p !== receiver).every((p) => seesAndHears(p.number)(received[p.identity])));
  }
}

for (const singleConnection of [true, false]) {
  const endpoint = singleConnection ? 'one connection' : 'two connections';
  test(`three participants see and hear each other (${endpoint})`, { timeout: 120_000 }, async (t) => {
    const people = await meet(t, `three-${singleConnection}`, [1, 6, 11].map((number) => ({ number, singleConnection })));
    await allSeeAndHearAll(people);
  });
}

test('clients of both endpoints meet in one room', { timeout: 120_000 }, async (t) => {
  const people = await meet(t, 'both-endpoints', [
    { number: 3, singleConnection: true },
    { number: 12, singleConnection: false },
  ]);
  await allSeeAndHearAll(people);
});

test('the layer follows the size of the tile, down and up again', { timeout: 120_000 }, async (t) => {
  const camera = { width: 1280, height: 720, rate: 15 };
  const [, receiver] = await meet(t, 'layers', [
    {
      number: 9, identity: 'sender', camera, microphone: false, maxBitrate: 1_200_000, frameRate: 15,
      layers: [{ width: 320, height: 180, maxBitrate: 120_000 }, { width: 640, height: 360, maxBitrate: 400_000 }],
    },
    { number: 4, identity: 'receiver', camera: { width: 320, height: 180 }, microphone: false, adaptiveStream: true },
  ]);
  const height = () => receiver.inboundStats('sender').then((s) => s?.frameHeight ?? 0);
  const resize = (w, h) => receiver.evaluate(([width, hgt]) => {
    for (const video of document.querySelectorAll('video[data-identity=sender]')) video.style.cssText = `width:${width}px;height:${hgt}px`;
  }, [w, h]);
  await until('the sender is subscribed', () => receiver.evaluate(() => document.querySelector('video[data-identity=sender]') !== null));
  await resize(1280, 720);
  await untilValue('a big tile gets 720 lines', height, (h) => h === 720, { patience: 45_000 });
  await resize(160, 90);
  await untilValue('a small tile gets 180 lines', height, (h) => h === 180, { patience: 30_000 });
  assert.equal(await receiver.received(300).then((r) => r.sender.number), 9);
  await resize(1280, 720);
  await untilValue('a big tile gets 720 lines again', height, (h) => h === 720, { patience: 30_000 });
  assert.equal(await receiver.received(300).then((r) => r.sender.number), 9);
});

test('high definition arrives as high definition: 1280 by 720 at the receiver', { timeout: 120_000 }, async (t) => {
  const camera = { width: 1280, height: 720, rate: 25 };
  const [, receiver] = await meet(t, 'hd', [
    { number: 10, identity: 'sender', camera, simulcast: false, maxBitrate: 2_000_000, frameRate: 25 },
    { number: 1, identity: 'receiver', camera: { width: 320, height: 180 }, microphone: false },
  ]);
  const stats = await untilValue('720 lines are decoded', () => receiver.inboundStats('sender'), (s) => s?.frameHeight === 720 && s.framesDecoded > 50, { patience: 60_000 });
  assert.equal(stats.frameWidth, 1280);
  assert.equal((await receiver.received(300)).sender.number, 10);
});

test('a muted microphone is silent and says so, and sounds again when opened', { timeout: 90_000 }, async (t) => {
  const [speaker, listener] = await meet(t, 'mute', [
    { number: 7, identity: 'speaker' },
    { number: 2, identity: 'listener', microphone: false },
  ]);
  const heard = () => listener.received(1000).then((r) => r.speaker);
  await untilValue('the speaker is seen and heard', heard, seesAndHears(7));
  await speaker.evaluate(() => window.room.localParticipant.setMicrophoneEnabled(false));
  await untilValue('the microphone is silent', heard, (h) => h.audioMuted === true && h.hertz === null);
  await speaker.evaluate(() => window.room.localParticipant.setCameraEnabled(false));
  await untilValue('the camera is known to be off', heard, (h) => h.videoMuted === true);
  await speaker.evaluate(async () => {
    await window.room.localParticipant.setMicrophoneEnabled(true);
    await window.room.localParticipant.setCameraEnabled(true);
  });
  await untilValue('the speaker is seen and heard again', heard, (h) => seesAndHears(7)(h) && h.audioMuted === false);
});

test('who speaks is announced', { timeout: 90_000 }, async (t) => {
  const [speaker, listener] = await meet(t, 'speakers', [
    { number: 7, identity: 'speaker' },
    { number: 2, identity: 'listener', microphone: false },
  ]);
  const speakers = () => listener.evaluate(() => window.room.activeSpeakers.map((p) => p.identity));
  await untilValue('the speaker is an active speaker', speakers, (s) => s.includes('speaker'));
  await speaker.evaluate(() => window.room.localParticipant.setMicrophoneEnabled(false));
  await untilValue('nobody speaks', speakers, (s) => s.length === 0);
});

test('data arrives, reliable and lossy, to all or to the one it is for', { timeout: 90_000 }, async (t) => {
  const [sender, receiver, other] = await meet(t, 'data', [
    { number: 1, identity: 'sender', camera: false, microphone: false },
    { number: 2, identity: 'receiver', camera: false, microphone: false },
    { number: 3, identity: 'other', camera: false, microphone: false, singleConnection: false },
  ]);
  await until('all know each other', async () =>
    (await Promise.all([sender, receiver, other].map((p) => p.evaluate(() => window.room.remoteParticipants.size)))).every((n) => n === 2));
  const send = (text, options) => sender.evaluate(
    ([words, o]) => window.room.localParticipant.publishData(new TextEncoder().encode(words), o), [text, options]);
  const texts = (p) => p.evaluate(() => window.events.filter((e) => e.name === 'DataReceived').map((e) => e.text));
  await send('reliable to all', { reliable: true, topic: 'test' });
  await send('reliable to one', { reliable: true, destinationIdentities: ['receiver'] });
  await send('last to all', { reliable: true });
  await untilValue('the receiver has all three in order', () => texts(receiver), (all) =>
    JSON.stringify(all) === JSON.stringify(['reliable to all', 'reliable to one', 'last to all']));
  await untilValue('the other has two', () => texts(other), (all) => all.includes('last to all'));
  assert.deepEqual(await texts(other), ['reliable to all', 'last to all']);
  await until('a lossy message arrives (sent until one does)', async () => {
    await send('lossy', { reliable: false });
    return (await texts(receiver)).includes('lossy');
  });
});

test('a WebSocket cut for ten seconds is resumed and no media is lost', { timeout: 120_000 }, async (t) => {
  const proxy = await startProxy(Number(new URL(server.url).port));
  t.after(() => proxy.close());
  const [sender, receiver] = await meet(t, 'cut', [
    { number: 13, identity: 'sender' },
    { number: 2, identity: 'receiver', microphone: false, socketUrl: `ws://127.0.0.1:${proxy.port}` },
  ]);
  await untilValue('the sender is seen and heard', () => receiver.received(1000).then((r) => r.sender), seesAndHears(13));
  const before = await receiver.inboundStats('sender');
  proxy.cut();
  await until('the client notices', () => receiver.evaluate(() => window.events.some((e) => /econnecting/.test(e.name))));
  const end = Date.now() + 10_000;
  // While the line is cut, frames keep coming: looked at every second.
  let last = before.framesDecoded;
  while (Date.now() < end) {
    await new Promise((done) => setTimeout(done, 1000));
    const { framesDecoded } = await receiver.inboundStats('sender');
    assert.ok(framesDecoded > last, `frames stand still at ${last} while signalling is cut`);
    last = framesDecoded;
  }
  proxy.mend();
  await until('the client is back', () => receiver.evaluate(() => window.room.state === 'connected' && window.events.some((e) => e.name === 'Reconnected')));
  const after = await receiver.inboundStats('sender');
  assert.ok(after.framesDecoded >= last, 'the track was replaced: it was not a resume');
  const seen = await sender.evaluate(() => window.room.remoteParticipants.has('receiver'));
  assert.ok(seen, 'the others saw the participant leave');
  // Signalling works again in both directions.
  await sender.evaluate(() => window.room.localParticipant.setCameraEnabled(false));
  await untilValue('a mute arrives after the resume', () => receiver.received(200).then((r) => r.sender.videoMuted), (m) => m === true);
});

test('a participant whose browser is killed is gone for the others', { timeout: 90_000 }, async (t) => {
  const [survivor, victim] = await meet(t, 'killed', [
    { number: 1, identity: 'survivor', microphone: false },
    { number: 2, identity: 'victim', microphone: false },
  ]);
  await until('they see each other', () => survivor.evaluate(() => window.room.remoteParticipants.size === 1));
  await victim.kill();
  await until('the survivor is alone', () => survivor.evaluate(() => window.room.remoteParticipants.size === 0), { patience: 60_000 });
});
