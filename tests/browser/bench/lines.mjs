// What viewers in Chromium and of the Python SDK see and hear over bad lines, by their own statistics and the line's
// counts. Runs inside one end of a line, the server and the publisher at the other; prints its results as JSON:
//
//   line up --config long/lossy.toml -- sh -c 'ip netns exec $LINE_A node bench/lines.mjs'

import { Belongings, CHROMIUM, Participant, serveHarness } from '../lib/browsers.mjs';
import { Line } from '../lib/line.mjs';
import { Receiver } from '../lib/python.mjs';
import { Server } from '../lib/server.mjs';
import { until } from '../lib/waiting.mjs';

/** Between looks, in milliseconds. */
const LOOK = 250;

/** What the lines do, at so many seconds after the first look. Who has the line is at `a`: the viewer, or with `isUplink` the sender. */
const both = (change) => [{ at: 0, set: { delay_ms: 25, loss: 0, rate_kbit: 0, ...change } }];
const DOWN = 'b_to_a';
const UP = 'a_to_b';
const rates = (direction, ...steps) => steps.map(([at, rate_kbit]) => ({ at, set: { direction, delay_ms: 25, loss: 0, rate_kbit, queue_ms: 300 } }));
const LINES = {
  'no loss': { seconds: 20, steps: both({}) },
  '2 % loss': { seconds: 30, steps: both({ loss: 0.02 }) },
  '5 % loss': { seconds: 30, steps: both({ loss: 0.05 }) },
  '15 % loss': { seconds: 30, steps: both({ loss: 0.15 }) },
  '30 % loss': { seconds: 30, steps: both({ loss: 0.3 }) },
  '300 ms round trip': { seconds: 30, steps: both({ delay_ms: 150 }) },
  '3 Mbit/s, 300 kbit/s, 3 Mbit/s': { seconds: 60, steps: rates(DOWN, [0, 3000], [20, 300], [40, 3000]) },
  'uplink 3 Mbit/s, 300 kbit/s, 3 Mbit/s': { seconds: 90, steps: rates(UP, [0, 3000], [20, 300], [40, 3000]), isUplink: true },
};

const wanted = process.argv.slice(2);
const own = new Belongings();
const results = [];
try {
  const line = own.add(await Line.here());
  const server = own.add(await Server.start({ host: line.host, wrap: line.atOtherEnd }), () => server.stop());
  const harness = own.add(await serveHarness());
  const common = { server, harnessUrl: harness.url, camera: false, microphone: false };
  const here = { prepare: harness.hand };
  const there = { prepare: harness.hand, executable: line.wrap(CHROMIUM) };
  const all = Object.entries(LINES).flatMap(([name, line]) =>
    ['Chromium', ...(line.isUplink ? [] : ['Python SDK'])].map((client) => [name, client, line]));
  for (const [name, client, { seconds, steps, isUplink = false }] of all) {
    if (wanted.length && !wanted.some((word) => `${name}, ${client}`.includes(word))) continue;
    const pair = new Belongings();
    try {
      const room = { ...common, room: `${name}, ${client}` };
      const sender = pair.add(await Participant.join({ ...room, number: 1, identity: 'sender', ...(isUplink ? here : there) }), () => sender.leave());
      await sender.evaluate((o) => window.stamped.publish(window.room, o), { width: 960, height: 540, maxBitrate: 1_200_000, noisy: 0.1, simulcast: true });
      await line.set({ ...steps[0].set });
      let report;
      if (client === 'Chromium') {
        const viewer = pair.add(await Participant.join({ ...room, number: 2, identity: 'viewer', ...(isUplink ? there : here) }), () => viewer.leave());
        report = () => viewer.evaluate(() => window.receiving.reports(window.room, 'sender'));
      } else {
        const viewer = pair.add(new Receiver({ url: server.socketUrl, room: room.room, identity: 'viewer' }));
        report = async () => viewer.told;
      }
      const seen = { name, client, ...await watch(report, line, seconds, steps, isUplink ? UP : DOWN) };
      results.push(seen);
      process.stderr.write(`${JSON.stringify(seen)}\n`);
    } finally {
      await pair.closeAll();
      await line.set({ delay_ms: 25, loss: 0, rate_kbit: 0 });
    }
  }
} finally {
  await own.closeAll();
}
console.log(JSON.stringify(results));

async function watch(report, line, seconds, steps, direction) {
  await until('the viewer sees', async () => (await report()).camera?.inbound?.framesDecoded > 5, { patience: 30_000 });
  const looks = [];
  let rate = steps[0].set.rate_kbit ?? 0;
  let delay = steps[0].set.delay_ms;
  const left = steps.slice(1);
  const begin = Date.now();
  const before = await report();
  const hears = [];
  let last = before.microphone.inbound;
  for (let at = 0; at < seconds; ) {
    await new Promise((done) => setTimeout(done, LOOK));
    at = (Date.now() - begin) / 1000;
    if (left.length && left[0].at <= at) {
      const [{ set }] = left.splice(0, 1);
      await line.set(set);
      ({ rate_kbit: rate = rate, delay_ms: delay = delay } = set);
    }
    const [{ camera, microphone }, { [direction]: counts }] = await Promise.all([report(), line.counts()]);
    const picture = camera.inbound;
    const sound = microphone.inbound;
    const samples = sound.totalSamplesReceived - last.totalSamplesReceived;
    // No new report is no news.
    if (sound !== last) hears.push([at, samples > 0 ? (sound.concealedSamples - last.concealedSamples) / samples : 1]);
    last = sound;
    const queue = rate ? Math.max(0, Math.round((counts.waiting.bytes * 8) / rate - delay)) : 0;
    looks.push({ at: Math.round(at * 10) / 10, width: picture.frameWidth, queue });
  }
  const after = await report();
  /** Null where the client does not tell. */
  const frozen = (all) => all.camera.inbound.totalFreezesDuration;
  const of = (kind, field) => (after[kind].inbound[field] ?? 0) - (before[kind].inbound[field] ?? 0);
  const queues = looks.map((look) => look.queue).toSorted((a, b) => a - b);
  let stall = 0;
  let began = null;
  for (const [at, share] of hears) {
    if (share < 0.9) began = null;
    else stall = Math.max(stall, at - (began ??= at - LOOK / 1000));
  }
  const widths = [];
  for (const { at, width } of looks) if (widths.at(-1)?.[1] !== width) widths.push([at, width]);
  return {
    concealed: of('microphone', 'concealedSamples') / of('microphone', 'totalSamplesReceived'),
    stall: Math.round(stall * 10) / 10,
    freezes: of('camera', 'freezeCount'),
    frozen: frozen(after) === undefined ? null : frozen(after) - frozen(before),
    frames: of('camera', 'framesDecoded') / seconds,
    repaired: of('camera', 'retransmittedPacketsReceived'),
    received: of('camera', 'packetsReceived'),
    queue: [queues[Math.floor(queues.length / 2)], queues[Math.floor(queues.length * 0.95)], queues.at(-1)],
    widths,
  };
}
