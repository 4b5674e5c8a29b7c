// Sound in RED and without: who negotiated it gets it as it comes, and more of it where the line loses; nobody else does.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { toneOf } from '../lib/media.mjs';
import { startRelay, through } from '../lib/relay.mjs';
import { Server } from '../lib/server.mjs';
import { untilValue } from '../lib/waiting.mjs';

const suite = new Belongings();
let server;
let harness;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
  harness = suite.add(await serveHarness());
});
after(() => suite.closeAll());

/** Makes a page one that knows no RED, as Firefox. */
const withoutRed = (page) => page.addInitScript(() => {
  const strip = (sdp) => {
    const types = [...sdp.matchAll(/^a=rtpmap:(\d+) red\/48000.*\r\n/gm)].map(([, type]) => type);
    return types.reduce((text, type) => text
      .replace(new RegExp(`^a=(rtpmap|fmtp|rtcp-fb):${type} .*\r\n`, 'gm'), '')
      .replace(new RegExp(`^(m=audio .*?) ${type}(?= |\r)`, 'gm'), '$1'), sdp);
  };
  const prototype = RTCPeerConnection.prototype;
  for (const name of ['createOffer', 'createAnswer']) {
    const original = prototype[name];
    prototype[name] = async function (...words) {
      const { type, sdp } = await original.apply(this, words);
      return { type, sdp: strip(sdp) };
    };
  }
  const { setRemoteDescription } = prototype;
  prototype.setRemoteDescription = function ({ type, sdp }) {
    return setRemoteDescription.call(this, { type, sdp: strip(sdp) });
  };
});

/** A room with a sender and viewers: `prepare` of each by its identity. */
async function meet(t, room, pages, camera = false) {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const all = {};
  for (const [identity, prepare] of Object.entries(pages)) {
    const isSender = identity === 'sender';
    all[identity] = own.add(await Participant.join({
      server, harnessUrl: harness.url, room, number: 7, identity, camera: camera && isSender ? {} : false, microphone: isSender, prepare,
    }), () => all[identity].leave());
  }
  return all;
}

const inbound = (viewer) => viewer.evaluate(async () => {
  const report = await window.room.remoteParticipants.get('sender')?.getTrackPublication('microphone')?.track?.receiver?.getStats();
  return [...(report?.values() ?? [])].find(({ type }) => type === 'inbound-rtp');
});

/** In some seconds: the share of the sound that was made up and of the packets that were lost, and bytes for each packet. */
async function listen(viewer, seconds = 2) {
  const before = await inbound(viewer);
  await new Promise((done) => setTimeout(done, seconds * 1000));
  const now = await inbound(viewer);
  const of = (field) => (now?.[field] ?? 0) - (before?.[field] ?? 0);
  const packets = of('packetsReceived');
  return {
    concealed: of('concealedSamples') / of('totalSamplesReceived'),
    lost: of('packetsLost') / (of('packetsLost') + packets),
    size: of('bytesReceived') / packets,
  };
}

/**
 * Until so many earlier packets come along with each for `viewer`, by their size beside those of `plain`, who takes no
 * RED. (Browsers do not count what comes along, and name the codec inside RED.)
 */
const comeAlong = (plain, viewer, least, { most = least, patience = 30_000 } = {}) =>
  untilValue(`${least} come along for ${viewer.identity}`, async () => {
    const [one, other] = await Promise.all([listen(viewer), listen(plain)]);
    return one.size / other.size - 1;
  }, (along) => along > least - 0.4 && along < most + 0.4, { patience });
const hears = (viewer) => untilValue(`${viewer.identity} hears the sender`, () => viewer.received(400), ({ sender }) => Math.abs((sender?.hertz ?? 0) - toneOf(7)) < 20);

test('RED reaches those alone who negotiated it', { timeout: 120_000 }, async (t) => {
  const { red, plain } = await meet(t, 'red', { sender: undefined, red: undefined, plain: withoutRed });
  await Promise.all([comeAlong(plain, red, 1), hears(red), hears(plain)]);
});

for (const [sent, prepare] of [['without RED', withoutRed], ['in RED', undefined]]) {
  test(`sound that is sent ${sent} goes through a line that loses an eighth`, { timeout: 180_000 }, async (t) => {
    const relay = await startRelay(server.udpPort);
    t.after(() => relay.close());
    const { whole, lossy, plain } = await meet(t, `lossy ${sent}`, {
      sender: prepare,
      whole: undefined,
      lossy: through(relay),
      plain: async (page) => { await withoutRed(page); await through(relay)(page); },
    });
    const usual = prepare ? 0 : 1;
    await Promise.all([comeAlong(plain, whole, usual), comeAlong(plain, lossy, usual)]);
    relay.lose(0.125);
    await comeAlong(plain, lossy, 2, { most: 3 });
    const [good, bad, worst] = await Promise.all([whole, lossy, plain].map((viewer) => listen(viewer, 10)));
    t.diagnostic(`a good line: ${JSON.stringify(good)}; a bad one: ${JSON.stringify(bad)}; a bad one without RED: ${JSON.stringify(worst)}`);
    assert.ok(Math.abs(good.size / worst.size - 1 - usual) < 0.4, 'another line changes nothing');
    assert.ok(bad.lost > 0.06, 'the line loses');
    assert.ok(bad.concealed < bad.lost / 4, `${bad.concealed} of the sound was made up`);
    assert.ok(bad.concealed < worst.concealed / 3, 'RED helps');
    await hears(lossy);
    relay.lose(0);
    await comeAlong(plain, lossy, usual, { patience: 60_000 });
  });
}

test('on a line that loses nothing and is too narrow for the picture nothing comes along', { timeout: 180_000 }, async (t) => {
  const relay = await startRelay(server.udpPort);
  t.after(() => relay.close());
  const { narrow, plain } = await meet(t, 'narrow', { sender: undefined, narrow: through(relay), plain: withoutRed }, true);
  await comeAlong(plain, narrow, 1);
  relay.narrow(250_000);
  await comeAlong(plain, narrow, 0);
  await hears(narrow);
  relay.narrow(Infinity);
  await comeAlong(plain, narrow, 1, { patience: 60_000 });
});
