// Backup codecs: a publisher of AV1 sends VP8 too while somebody is there who does not take AV1, and to whom it is sent.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { Server } from '../lib/server.mjs';
import { untilValue } from '../lib/waiting.mjs';

const camera = { width: 480, height: 270, rate: 15 };
const [PREFER_REGRESSION, SIMULCAST, REGRESSION] = [0, 1, 2];
const suite = new Belongings();
let server;
let harness;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
  harness = suite.add(await serveHarness());
});
after(() => suite.closeAll());

/** Makes a page's connections take no AV1, as an older browser's do, in what they offer and in what they answer. */
const withoutAv1 = (page) => page.addInitScript(() => {
  const { prototype } = RTCPeerConnection;
  const taken = RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => mimeType !== 'video/AV1');
  for (const name of ['createOffer', 'createAnswer']) {
    const original = prototype[name];
    prototype[name] = function create(...options) {
      for (const transceiver of this.getTransceivers()) {
        if (transceiver.receiver.track.kind === 'video') transceiver.setCodecPreferences(taken);
      }
      return original.apply(this, options);
    };
  }
});

/** A sender of AV1 with a backup, a viewer that takes everything, and how to bring one that takes no AV1. */
async function meet(t, backupCodecPolicy, singleConnection = true) {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const common = {
    server, harnessUrl: harness.url, room: `backup-${t.name}`, microphone: false, singleConnection,
  };
  const join = async (options) => {
    const joined = await Participant.join({ ...common, ...options });
    return own.add(joined, () => joined.leave());
  };
  const sender = await join({
    number: 5, identity: 'sender', codec: 'av1', camera, frameRate: camera.rate, maxBitrate: 300_000,
    backupCodec: { codec: 'vp8', encoding: { maxBitrate: 300_000, maxFramerate: camera.rate } }, backupCodecPolicy,
  });
  const whole = await join({ number: 2, identity: 'whole', camera: false });
  const joinOld = () => join({ number: 3, identity: 'old', camera: false, prepare: withoutAv1 });
  return { sender, whole, joinOld };
}

const sent = (sender) => sender.evaluate(() => window.sentBytes());

/** Waits until a viewer decodes the sender's picture in a codec, and sees that it is the right one. */
async function sees(viewer, codec, patience = 45_000) {
  const look = async () => {
    const before = await viewer.inboundStats('sender');
    await new Promise((done) => setTimeout(done, 700));
    const { sender } = await viewer.received(100);
    const now = await viewer.inboundStats('sender');
    return { codec: now?.codec, number: sender?.number, frames: (now?.framesDecoded ?? 0) - (before?.framesDecoded ?? 0) };
  };
  return untilValue(`${viewer.identity} sees ${codec}`, look,
    (seen) => seen.codec === codec && seen.number === 5 && seen.frames > 0, { patience });
}

/** Waits until no more is sent in a codec. */
async function sendsNoMore(sender, codec) {
  let before = (await sent(sender))[codec];
  const look = async () => {
    await new Promise((done) => setTimeout(done, 1500));
    const now = (await sent(sender))[codec];
    const more = now - before;
    before = now;
    return more;
  };
  await untilValue(`nothing more is sent in ${codec}`, look, (more) => more === 0, { patience: 40_000 });
}

const leave = async (viewer) => {
  await viewer.evaluate(() => window.room.disconnect());
  await viewer.leave();
};

for (const singleConnection of [true, false]) {
  const endpoint = singleConnection ? 'one connection' : 'two connections';
  test(`simulcast over ${endpoint}: who takes no AV1 gets VP8, which is sent no longer than needed`, { timeout: 240_000 }, async (t) => {
    const { sender, whole, joinOld } = await meet(t, SIMULCAST, singleConnection);
    await sees(whole, 'video/AV1');
    assert.deepEqual(Object.keys(await sent(sender)), ['video/av1']);
    const old = await joinOld();
    t.diagnostic(JSON.stringify(await sees(old, 'video/VP8')));
    t.diagnostic(JSON.stringify(await sees(whole, 'video/AV1')));
    const both = await sent(sender);
    assert.ok(both['video/vp8'] > 0 && both['video/av1'] > 0);
    t.diagnostic(`sent: ${JSON.stringify(both)}`);
    await leave(old);
    await sendsNoMore(sender, 'video/vp8');
    await sees(whole, 'video/AV1');
    const again = await joinOld();
    await sees(again, 'video/VP8');
    await sees(whole, 'video/AV1');
  });
}

for (const [name, policy] of [['regression', REGRESSION], ['preferred regression in a small room', PREFER_REGRESSION]]) {
  test(`${name}: all get VP8 while somebody takes no AV1, and AV1 again afterwards`, { timeout: 240_000 }, async (t) => {
    const { sender, whole, joinOld } = await meet(t, policy);
    await sees(whole, 'video/AV1');
    const freezes = async () => (await whole.inboundStats('sender')).freezeCount;
    const counted = [await freezes()];
    assert.deepEqual(Object.keys(await sent(sender)), ['video/av1']);
    const old = await joinOld();
    await sees(old, 'video/VP8');
    await sees(whole, 'video/VP8');
    await sendsNoMore(sender, 'video/av1');
    await sees(whole, 'video/VP8');
    counted.push(await freezes());
    await leave(old);
    await sees(whole, 'video/AV1');
    await sendsNoMore(sender, 'video/vp8');
    await sees(whole, 'video/AV1');
    counted.push(await freezes());
    t.diagnostic(`freezes of who takes both, in AV1, in VP8 and in AV1 again: ${counted}`);
  });
}

test('both codecs are muted, published anew and come back after a lost connection', { timeout: 300_000 }, async (t) => {
  const { sender, whole, joinOld } = await meet(t, SIMULCAST);
  const old = await joinOld();
  const bothSee = async () => {
    await sees(old, 'video/VP8');
    await sees(whole, 'video/AV1');
  };
  await bothSee();
  await sender.evaluate(() => window.room.localParticipant.setCameraEnabled(false));
  for (const viewer of [old, whole]) {
    await untilValue(`${viewer.identity} is told`, () => viewer.received(100), (seen) => seen.sender?.videoMuted === true);
  }
  // livekit-client goes on with black pictures in the backup codec: nobody is sent them.
  for (const viewer of [old, whole]) {
    const received = async () => (await viewer.inboundStats('sender')).framesDecoded;
    let before = await received();
    await untilValue(`${viewer.identity} gets no pictures`, async () => {
      await new Promise((done) => setTimeout(done, 1500));
      const now = await received();
      const more = now - before;
      before = now;
      return more;
    }, (more) => more === 0);
  }
  await sender.evaluate(() => window.room.localParticipant.setCameraEnabled(true));
  await bothSee();

  const processor = await sender.page.context().newCDPSession(sender.page);
  // A busy page knows its own track long after it was agreed.
  for (const [scenario, slowdown] of [['signal-reconnect', 1], ['full-reconnect', 1], ['full-reconnect', 20], ['full-reconnect', 20]]) {
    await processor.send('Emulation.setCPUThrottlingRate', { rate: slowdown });
    await sender.evaluate((name) => window.room.simulateScenario(name), scenario);
    await untilValue(`the sender is back after ${scenario}`,
      () => sender.evaluate(() => window.events.filter(({ name }) => name === 'Reconnected').length + window.room.state),
      (state) => /^[1-9]\d*connected$/.test(state));
    await sender.evaluate(() => { window.events.length = 0; });
    await bothSee();
    t.diagnostic(`seen after ${scenario}, slowed down ${slowdown} times`);
  }
  await processor.send('Emulation.setCPUThrottlingRate', { rate: 1 });

  await sender.evaluate(() => {
    const { localParticipant } = window.room;
    window.old = localParticipant.getTrackPublication('camera').track;
    return localParticipant.unpublishTrack(window.old, false);
  });
  for (const viewer of [old, whole]) {
    await untilValue(`${viewer.identity} sees nothing`,
      () => viewer.evaluate(() => window.room.remoteParticipants.get('sender').trackPublications.size), (count) => count === 0);
  }
  await sender.evaluate(() => window.room.localParticipant.publishTrack(window.old, { source: 'camera' }).then(() => {}));
  await bothSee();
});
