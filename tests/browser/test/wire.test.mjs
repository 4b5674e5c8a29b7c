// What media meets on its way: an address that changes, and headers of the longer form.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { startRelay, through } from '../lib/relay.mjs';
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

/** How long media may be away after an address has changed, in milliseconds: Chromium checks its path every 2.5 s. */
const BACK_WITHIN = 6000;

test('media comes back by itself when the address of a subscriber changes', { timeout: 90_000 }, async (t) => {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const relay = own.add(await startRelay(server.udpPort));
  const common = { server, harnessUrl: harness.url, room: 'rebound', microphone: false };
  const sender = own.add(await Participant.join({ ...common, number: 5, identity: 'sender' }), () => sender.leave());
  const receiver = own.add(await Participant.join({
    ...common, number: 2, identity: 'receiver', camera: false,
    prepare: through(relay),
  }), () => receiver.leave());
  await until('frames come', async () => (await receiver.inboundStats('sender'))?.framesDecoded > 50);
  await receiver.evaluate(() => {
    window.longest = 0;
    let last = performance.now();
    const look = (now) => {
      window.longest = Math.max(window.longest, now - last);
      last = now;
      document.querySelector('video').requestVideoFrameCallback(look);
    };
    document.querySelector('video').requestVideoFrameCallback(look);
  });
  const before = (await receiver.inboundStats('sender')).framesDecoded;
  relay.rebind();
  const rebound = Date.now();
  await until('a hundred more frames come', async () => (await receiver.inboundStats('sender')).framesDecoded > before + 100);
  const longest = await receiver.evaluate(() => window.longest);
  t.diagnostic(`the picture stood for ${Math.round(longest)} ms; ${Date.now() - rebound} ms until 100 frames`);
  assert.ok(longest <= BACK_WITHIN, `the picture stood for ${longest} ms`);
  const noticed = await receiver.evaluate(() => window.events.filter(({ name }) => /econnect/.test(name)).length);
  assert.equal(noticed, 0, 'signalling had to help');
});

/** Notes what the browser knows of each frame: an id only if it read the descriptors, first of all a keyframe's long one. */
const noteFrames = (page) => page.addInitScript(() => {
  const code = `onrtctransform = ({ transformer: { readable, writable } }) => readable.pipeThrough(new TransformStream({
    transform(frame, controller) {
      const { frameId, dependencies } = frame.getMetadata();
      postMessage({ frameId, dependencies });
      controller.enqueue(frame);
    },
  })).pipeTo(writable);`;
  window.frames = [];
  const { addTransceiver } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function (kind, ...rest) {
    const transceiver = addTransceiver.call(this, kind, ...rest);
    if (kind === 'video') {
      const worker = new Worker(URL.createObjectURL(new Blob([code])));
      worker.onmessage = ({ data }) => window.frames.push(data);
      transceiver.receiver.transform = new RTCRtpScriptTransform(worker);
    }
    return transceiver;
  };
});

test('descriptors longer than sixteen bytes arrive: AV1 in spatial and temporal layers', { timeout: 90_000 }, async (t) => {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const common = { server, harnessUrl: harness.url, room: 'long-headers', microphone: false };
  const sender = own.add(await Participant.join({ ...common, number: 5, identity: 'sender', codec: 'av1' }), () => sender.leave());
  const receiver = own.add(await Participant.join({ ...common, number: 2, identity: 'receiver', camera: false, prepare: noteFrames }), () => receiver.leave());
  await until('frames come', async () => (await receiver.inboundStats('sender'))?.framesDecoded > 10);
  const description = await receiver.evaluate(() => window.room.engine.pcManager.publisher._pc.remoteDescription.sdp);
  assert.match(description, /a=extmap-allow-mixed/);
  assert.match(description, /a=extmap:\d+ \S*dependency-descriptor/);
  const sent = await sender.evaluate(async () => {
    const [publication] = window.room.localParticipant.videoTrackPublications.values();
    return [...(await publication.track.sender.getStats()).values()].find(({ type }) => type === 'outbound-rtp').scalabilityMode;
  });
  assert.match(sent, /^L[23]T3/);
  const frames = await untilValue('frames have ids', () => receiver.evaluate(() => window.frames.slice(-20)),
    (found) => found.length === 20 && found.every(({ frameId }) => Number.isInteger(frameId)));
  assert.ok(frames.some(({ dependencies }) => dependencies.length > 0), 'no frame depends on another');
  const { framesDecoded } = await receiver.inboundStats('sender');
  await until('decoding goes on', async () => (await receiver.inboundStats('sender')).framesDecoded > framesDecoded + 30);
});
