// Ten minutes of one publisher over a line that loses packets in both directions. Runs inside one end of a `line`; the
// server and the publisher are at the other:
//
//   line up --config long/lossy.toml -- sh -c 'ip netns exec $LINE_A npm run long'

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { Belongings, CHROMIUM, Participant, serveHarness } from '../lib/browsers.mjs';
import { startFirefox } from '../lib/firefox.mjs';
import { Line } from '../lib/line.mjs';
import { NOTICED, median } from '../lib/media.mjs';
import { Receiver } from '../lib/python.mjs';
import { Server, token } from '../lib/server.mjs';
import { until } from '../lib/waiting.mjs';

const SECONDS = Number(process.env.TERRACE_LONG_SECONDS ?? 600);

/** Bits of picture a second: so that numbers begin again at 0 on the way. */
const BITRATE = 2_000_000;

/** No picture stands longer than this, in milliseconds. */
const STANDSTILL = 1000;

/** What a page says of the camera it receives. */
const watching = (page) => page.evaluate(async () => {
  const { camera, microphone } = await window.receiving.reports(window.room, 'sender');
  return { camera: camera.inbound, microphone: microphone.inbound, gaps: window.gaps };
});

/** Notes how long each picture stood from now on. */
const noteGaps = (page) => page.evaluate(() => {
  const video = document.querySelector('video[data-identity=sender]');
  window.gaps = { longest: 0, over: 0 };
  let last = performance.now();
  const look = (now) => {
    window.gaps.longest = Math.max(window.gaps.longest, now - last);
    window.gaps.over += now - last > 500;
    last = now;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
});

test('media goes on for ten minutes over a line that loses packets', { timeout: (SECONDS + 180) * 1000 }, async (t) => {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const line = own.add(await Line.here());
  // Firefox sends only from the address of the default route.
  execFileSync('ip', ['route', 'add', 'default', 'via', line.host]);
  const server = own.add(await Server.start({ host: line.host, wrap: line.atOtherEnd }), () => server.stop());
  const harness = own.add(await serveHarness());
  const common = { server, harnessUrl: harness.url, room: 'long', camera: false, microphone: false };
  const sender = own.add(
    await Participant.join({ ...common, number: 1, identity: 'sender', executable: line.wrap(CHROMIUM), prepare: harness.hand }),
    () => sender.leave(),
  );
  await sender.evaluate((o) => window.stamped.publish(window.room, o), { maxBitrate: BITRATE });

  const chromium = own.add(await Participant.join({ ...common, number: 2, identity: 'chromium' }), () => chromium.leave());
  const firefox = own.add(await startFirefox(500), () => firefox.close());
  const page = await firefox.newPage();
  await page.goto(harness.url);
  await page.evaluate((o) => window.joinRoom(o), {
    url: server.socketUrl, token: token({ room: 'long', identity: 'firefox' }), camera: false, microphone: false,
  });
  const sdk = own.add(new Receiver({ url: server.socketUrl, room: 'long', identity: 'sdk' }));

  const pages = { Chromium: chromium.page, Firefox: page };
  for (const [name, one] of Object.entries(pages)) {
    await until(`${name} sees`, async () => (await watching(one)).camera?.framesDecoded > 50);
  }
  await until('the SDK sees', () => sdk.told.frames > 50);
  await chromium.evaluate(() => window.stamped.watch(window.room, 'sender'));
  // The first seconds are the encoder's: it looks for its rate.
  await new Promise((done) => setTimeout(done, 10_000));
  for (const one of Object.values(pages)) await noteGaps(one);
  sdk.begin();

  const before = Object.fromEntries(await Promise.all(Object.entries(pages).map(async ([name, one]) => [name, (await watching(one)).camera.framesDecoded])));
  let last = { ...before, sdk: sdk.told.frames };
  const end = Date.now() + SECONDS * 1000;
  let looked = Date.now();
  while (Date.now() < end) {
    await new Promise((done) => setTimeout(done, 1000));
    const now = { sdk: sdk.told.frames };
    for (const [name, one] of Object.entries(pages)) now[name] = (await watching(one)).camera.framesDecoded;
    for (const name of Object.keys(now)) assert.ok(now[name] > last[name], `${name} stands still at ${now[name]}, ${Math.round((end - Date.now()) / 1000)} s before the end`);
    last = now;
    if (Date.now() - looked > 60_000) {
      looked = Date.now();
      const offsets = await chromium.evaluate(() => window.offsets.slice(-15));
      t.diagnostic(`${JSON.stringify(now)} ${offsets.map(Math.round).join(' ')}`);
    }
  }

  const offsets = await chromium.evaluate(() => window.offsets.slice(-60));
  t.diagnostic(`lip sync: ${Math.round(median(offsets))} ms (${offsets.map(Math.round).join(' ')})`);
  for (const [name, one] of Object.entries(pages)) {
    const { camera, microphone, gaps } = await watching(one);
    const pick = ({ packetsReceived, packetsLost, framesDecoded, framesDropped, freezeCount, totalFreezesDuration, nackCount, pliCount, retransmittedPacketsReceived, bytesReceived }) =>
      ({ packetsReceived, packetsLost, framesDecoded, framesDropped, freezeCount, totalFreezesDuration, nackCount, pliCount, retransmittedPacketsReceived, bytesReceived });
    t.diagnostic(`${name}: ${JSON.stringify({ ...pick(camera), gaps })}`);
    t.diagnostic(`${name}, sound: ${JSON.stringify({ packetsReceived: microphone.packetsReceived, packetsLost: microphone.packetsLost, concealedSamples: microphone.concealedSamples, totalSamplesReceived: microphone.totalSamplesReceived })}`);
    last[name] = { camera, gaps };
  }
  t.diagnostic(`SDK: ${JSON.stringify(sdk.told)}`);
  for (const name of Object.keys(pages)) {
    const { camera, gaps } = last[name];
    assert.ok(gaps.longest <= STANDSTILL, `${name}'s picture stood for ${gaps.longest} ms`);
    assert.ok(camera.nackCount > 0, `${name} asked for nothing again`);
    if (SECONDS >= 600) assert.ok(camera.packetsReceived > 65_536, 'the numbers did not begin again');
  }
  assert.ok(last.Chromium.camera.retransmittedPacketsReceived > 0, 'nothing was sent again');
  assert.ok(sdk.told.longest <= STANDSTILL / 1000, `the SDK's picture stood for ${sdk.told.longest} s`);
  assert.ok(Math.abs(median(offsets)) <= NOTICED, `the picture comes ${median(offsets)} ms after its sound`);
});
