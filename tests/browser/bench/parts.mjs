// What the Python SDK sees and hears over seven bad lines at once, with the whole server and without one part of how it
// shares lines at a time. Wants a server that was built with the feature `sfu/leave-out` (TERRACE_BIN). The line that
// changes is the one that this runs at an end of; the others end where it does. Prints its results as JSON:
//
//   line up --config long/lossy.toml -- sh -c 'ip netns exec $LINE_A node bench/parts.mjs'

import { Belongings, CHROMIUM, Participant, serveHarness } from '../lib/browsers.mjs';
import { freeNetwork, Line } from '../lib/line.mjs';
import { Receiver } from '../lib/python.mjs';
import { Server } from '../lib/server.mjs';
import { DOWN, rates, watch } from './watch.mjs';

/** How long each is looked at. */
const SECONDS = 60;

const STEPS = rates(DOWN, 300, [0, 3000], [20, 300], [40, 3000]);
const CHANGING = '3 Mbit/s, 300 kbit/s, 3 Mbit/s';
const OTHERS = {
  'no loss': { delay_ms: 25 },
  '2 % loss': { delay_ms: 25, loss: 0.02 },
  '5 % loss': { delay_ms: 25, loss: 0.05 },
  '15 % loss': { delay_ms: 25, loss: 0.15 },
  '30 % loss': { delay_ms: 25, loss: 0.3 },
  '300 ms round trip': { delay_ms: 150 },
};

/** By their names in sfu/src/part.rs, the whole first. Without those that arrange several pictures: there is one here. */
const PARTS = [
  '',
  'sound first',
  'room above a step up',
  'the pause after a step down',
  'the last picture is kept',
  'lower frame rates below the lowest layer',
  "a cut before the lower layer's keyframe",
  'what is lost is paid twice',
  'feedback is acted on at once',
  'an unknown line gets the lowest layer',
  'probes by padding',
  'less while a queue is long',
  "a keyframe's queue is no overuse",
  "loss that is the line's own",
  'pictures sent twice over lossy lines with room',
];

const wanted = process.argv.slice(2);
const own = new Belongings();
const results = [];
try {
  const first = own.add(await Line.here());
  const lines = { [CHANGING]: first };
  for (const [at, [name, change]] of Object.entries(OTHERS).entries()) {
    lines[name] = own.add(await Line.to(process.env.LINE_B, freeNetwork + at, change));
  }
  const harness = own.add(await serveHarness());
  for (const part of PARTS.filter((name) => !wanted.length || wanted.includes(name))) {
    const meeting = new Belongings();
    try {
      await first.set(STEPS[0].set);
      const environment = { LEAVE_OUT: part };
      const server = meeting.add(await Server.start({ host: first.host, everywhere: true, wrap: first.atOtherEnd, environment }), () => server.stop());
      const sender = meeting.add(await Participant.join({
        server, harnessUrl: harness.url, room: 'parts', number: 1, identity: 'sender', camera: false, microphone: false, prepare: harness.hand, executable: first.wrap(CHROMIUM),
      }), () => sender.leave());
      await sender.evaluate((o) => window.stamped.publish(window.room, o), { width: 960, height: 540, maxBitrate: 1_200_000, noisy: 0.1, simulcast: true });
      const seen = await Promise.all(Object.entries(lines).map(async ([name, line]) => {
        const viewer = meeting.add(new Receiver({
          url: server.socketUrl.replace(first.host, line.host), room: 'parts', identity: name, wrap: line.atThisEnd,
        }));
        const report = async () => viewer.told;
        return { name, ...await watch(report, SECONDS, line === first ? { line, steps: STEPS } : {}) };
      }));
      results.push({ part, seen });
      process.stderr.write(`${JSON.stringify(results.at(-1))}\n`);
    } finally {
      await meeting.closeAll();
    }
  }
} finally {
  await own.closeAll();
}
console.log(JSON.stringify(results));
