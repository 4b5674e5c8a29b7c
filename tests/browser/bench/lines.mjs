// What viewers in Chromium and of the Python SDK see and hear over bad lines, by their own statistics and the line's
// counts. Runs inside one end of a line, the server and the publisher at the other; prints its results as JSON:
//
//   line up --config long/lossy.toml -- sh -c 'ip netns exec $LINE_A node bench/lines.mjs'

import { Belongings, CHROMIUM, Participant, serveHarness } from '../lib/browsers.mjs';
import { Line } from '../lib/line.mjs';
import { Receiver } from '../lib/python.mjs';
import { Server } from '../lib/server.mjs';
import { DOWN, rates, UP, watch } from './watch.mjs';

/** What the lines do, at so many seconds after the first look. Who has the line is at `a`: the viewer, or with `isUplink` the sender. */
const both = (change) => [{ at: 0, set: { delay_ms: 25, loss: 0, rate_kbit: 0, ...change } }];
const LINES = {
  'no loss': { seconds: 20, steps: both({}) },
  '2 % loss': { seconds: 30, steps: both({ loss: 0.02 }) },
  '5 % loss': { seconds: 30, steps: both({ loss: 0.05 }) },
  '15 % loss': { seconds: 30, steps: both({ loss: 0.15 }) },
  '30 % loss': { seconds: 30, steps: both({ loss: 0.3 }) },
  '300 ms round trip': { seconds: 30, steps: both({ delay_ms: 150 }) },
  '3 Mbit/s, 300 kbit/s, 3 Mbit/s': { seconds: 60, steps: rates(DOWN, 300, [0, 3000], [20, 300], [40, 3000]) },
  'the same with a queue of 1 s': { seconds: 60, steps: rates(DOWN, 1000, [0, 3000], [20, 300], [40, 3000]) },
  'uplink 3 Mbit/s, 300 kbit/s, 3 Mbit/s': { seconds: 90, steps: rates(UP, 300, [0, 3000], [20, 300], [40, 3000]), isUplink: true },
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
      const seen = { name, client, ...await watch(report, seconds, { line, steps, direction: isUplink ? UP : DOWN }) };
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
