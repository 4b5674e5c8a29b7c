// Layers within a stream: one viewer gets fewer of them than another, decodes what it gets, and can go up again.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { startRelay, through } from '../lib/relay.mjs';
import { Server } from '../lib/server.mjs';
import { untilValue } from '../lib/waiting.mjs';

// Three spatial layers: Chromium makes none below 240 pixels of width.
const camera = { width: 960, height: 540, rate: 20 };
const suite = new Belongings();
let server;
let harness;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
  harness = suite.add(await serveHarness());
});
after(() => suite.closeAll());

/** A sender, a viewer that is to get less, by way of a relay, and one that gets everything. */
async function meet(t, codec) {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const relay = own.add(await startRelay(server.udpPort));
  const common = { server, harnessUrl: harness.url, room: `layers-${codec}`, microphone: false };
  const sender = own.add(
    await Participant.join({ ...common, number: 5, identity: 'sender', codec, camera, frameRate: camera.rate, maxBitrate: 900_000 }),
    () => sender.leave());
  const viewer = async (identity, prepare) => {
    const joined = await Participant.join({ ...common, number: 2, identity, camera: false, prepare });
    return own.add(joined, () => joined.leave());
  };
  const [less, whole] = [await viewer('less', through(relay)), await viewer('whole')];
  return { relay, less, whole };
}

const stats = (viewer) => viewer.inboundStats('sender');
/** Encoders take whole blocks, so a layer has a line more or less. */
const has = (s, wanted) => [wanted].flat().some((height) => Math.abs((s?.frameHeight ?? 0) - height) <= 2);
const lines = (viewer, wanted, patience = 45_000) =>
  untilValue(`${viewer.identity} gets ${wanted} lines`, () => stats(viewer), (s) => has(s, wanted), { patience });
const ask = (viewer, call, value) => viewer.evaluate(
  ([name, wish]) => window.room.remoteParticipants.get('sender').getTrackPublication('camera')[name](wish), [call, value]);
const [LOW, MEDIUM, HIGH] = [0, 1, 2];

/** Watches for a while: frames a second, and freezes and keyframes since it began or since `since`. */
async function watch(viewer, milliseconds = 4000, since = undefined) {
  const before = await stats(viewer);
  const begin = since ?? before;
  await new Promise((done) => setTimeout(done, milliseconds));
  const now = await stats(viewer);
  const { sender } = await viewer.received(300);
  return {
    frameRate: ((now.framesDecoded - before.framesDecoded) * 1000) / milliseconds,
    freezes: now.freezeCount - begin.freezeCount,
    keyframes: now.keyFramesDecoded - begin.keyFramesDecoded,
    kilobits: ((now.bytesReceived - before.bytesReceived) * 8) / milliseconds,
    frameHeight: now.frameHeight,
    number: sender?.number,
  };
}

for (const codec of ['vp9', 'av1']) {
  test(`${codec}: a viewer gets the spatial layer that it wants without a freeze`, { timeout: 240_000 }, async (t) => {
    const { less, whole } = await meet(t, codec);
    await lines(whole, 540);
    await lines(less, 540);
    const all = await watch(whole);
    t.diagnostic(`all layers: ${JSON.stringify(all)}`);
    for (const [quality, height] of [[LOW, 135], [HIGH, 540], [MEDIUM, 270], [LOW, 135], [HIGH, 540]]) {
      const since = await Promise.all([stats(less), stats(whole)]);
      await ask(less, 'setVideoQuality', quality);
      await lines(less, height, 20_000);
      const [seen, other] = await Promise.all([watch(less, 4000, since[0]), watch(whole, 4000, since[1])]);
      t.diagnostic(`${height} lines: ${JSON.stringify(seen)}; the other: ${JSON.stringify(other)}`);
      assert.ok(has(seen, height));
      assert.equal(seen.number, 5);
      // Where the processor is short both pictures stand still now and then.
      assert.ok(seen.freezes <= other.freezes, `${seen.freezes} freezes`);
      assert.ok(seen.frameRate > all.frameRate * 0.6, 'no frames are missing');
      assert.ok(has(other, 540));
    }
  });
}

for (const codec of ['vp8', 'vp9', 'av1']) {
  test(`${codec}: fewer frames a second are sent where fewer are enough`, { timeout: 240_000 }, async (t) => {
    const { less, whole } = await meet(t, codec);
    await lines(less, 540);
    await lines(whole, 540);
    const all = await watch(less);
    t.diagnostic(`all: ${JSON.stringify(all)}`);
    for (const [wish, isLess] of [[5, true], [60, false], [9, true], [60, false]]) {
      await ask(less, 'setVideoFPS', wish);
      const fits = (one) => (isLess ? one.frameRate < all.frameRate * 0.7 : one.frameRate > all.frameRate * 0.75);
      const seen = await untilValue(`about ${wish} frames a second`, () => watch(less, 3000), fits);
      t.diagnostic(`${wish} a second: ${JSON.stringify(seen)}`);
      assert.equal(seen.number, 5);
      assert.ok(seen.frameRate > 3, 'the picture moves');
      assert.ok(has(seen, 540));
    }
    assert.ok((await watch(whole)).frameRate > all.frameRate * 0.75, 'the other has all');
  });

  test(`${codec}: behind a thin line a viewer gets fewer layers, and more when it is wider`, { timeout: 240_000 }, async (t) => {
    const { relay, less, whole } = await meet(t, codec);
    await lines(less, 540);
    await lines(whole, 540);
    relay.narrow(350_000);
    await lines(less, [135, 180, 270], 30_000);
    const seen = await untilValue('the picture moves', () => watch(less), (s) => s.frameRate > 3);
    t.diagnostic(`thin: ${JSON.stringify(seen)}`);
    assert.equal(seen.number, 5);
    relay.narrow(Infinity);
    await lines(less, 540, 60_000);
    const back = await watch(less);
    t.diagnostic(`wide: ${JSON.stringify(back)}`);
    assert.equal(back.number, 5);
    assert.ok(has(await stats(whole), 540));
  });
}
