// Ten viewers of the Python SDK on ten different lines in one meeting: what each has by its own statistics, whether the
// best of them has any less for the others being there, and which layers the publisher in Chromium sends meanwhile. The
// best line is the one that this runs at an end of; the other nine end where it does. Prints its results as JSON:
//
//   line up --config long/good.toml -- sh -c 'ip netns exec $LINE_A node bench/ten-lines.mjs'

import { Belongings, CHROMIUM, Participant, serveHarness } from '../lib/browsers.mjs';
import { freeNetwork, Line } from '../lib/line.mjs';
import { Receiver } from '../lib/python.mjs';
import { Server } from '../lib/server.mjs';
import { untilValue } from '../lib/waiting.mjs';

/** How long each stage is looked at, in milliseconds. */
const STAGE = 20_000;

const OTHERS = {
  'another without loss': { delay_ms: 25 },
  '300 ms round trip': { delay_ms: 150 },
  '2 % loss': { delay_ms: 25, loss: 0.02 },
  '5 % loss': { delay_ms: 25, loss: 0.05 },
  '15 % loss': { delay_ms: 25, loss: 0.15 },
  '2 Mbit/s': { delay_ms: 25, rate_kbit: 2000, queue_ms: 300 },
  '1 Mbit/s': { delay_ms: 25, rate_kbit: 1000, queue_ms: 300 },
  '600 kbit/s': { delay_ms: 25, rate_kbit: 600, queue_ms: 300 },
  '300 kbit/s': { delay_ms: 25, rate_kbit: 300, queue_ms: 300 },
};

const own = new Belongings();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
try {
  const first = own.add(await Line.here());
  const lines = [];
  for (const [at, change] of Object.values(OTHERS).entries()) {
    lines.push(own.add(await Line.to(process.env.LINE_B, freeNetwork + at, change)));
  }
  const server = own.add(await Server.start({ host: first.host, everywhere: true, wrap: first.atOtherEnd }), () => server.stop());
  const harness = own.add(await serveHarness());
  const room = 'ten';
  const sender = own.add(await Participant.join({
    server, harnessUrl: harness.url, room, number: 1, identity: 'sender', camera: false, microphone: false, dynacast: true, prepare: harness.hand, executable: first.wrap(CHROMIUM),
  }), () => sender.leave());
  await sender.evaluate((o) => window.stamped.publish(window.room, o), { width: 960, height: 540, maxBitrate: 1_200_000, noisy: 0.1, simulcast: true });
  /** Pictures encoded so far, by layer. */
  const encoded = () => sender.evaluate(async () => {
    const [{ videoTrack }] = [...window.room.localParticipant.videoTrackPublications.values()];
    return Object.fromEntries([...(await videoTrack.sender.getStats()).values()]
      .filter(({ type }) => type === 'outbound-rtp').map((stat) => [stat.rid, stat.framesEncoded ?? 0]));
  });
  const viewers = {};
  const come = (name, line) => {
    viewers[name] = own.add(new Receiver({ url: server.socketUrl.replace(first.host, line.host), room, identity: name, wrap: line.atThisEnd }));
  };
  const ready = (name) => untilValue(`${name} sees`, () => viewers[name].told.camera?.inbound?.framesDecoded ?? 0, (frames) => frames > 5, { patience: 60_000 });

  /** What each viewer had and the publisher sent in a while. */
  async function stage(name, settle) {
    await pause(settle);
    const begin = Object.fromEntries(Object.entries(viewers).map(([who, { told }]) => [who, told]));
    const sentBefore = await encoded();
    const widths = Object.fromEntries(Object.keys(viewers).map((who) => [who, new Set()]));
    for (const end = Date.now() + STAGE; Date.now() < end; await pause(250)) {
      for (const [who, { told }] of Object.entries(viewers)) widths[who].add(told.camera.inbound.frameWidth);
    }
    const sent = await encoded();
    const rows = Object.entries(viewers).map(([who, { told }]) => {
      const of = (kind, field) => told[kind].inbound[field] - begin[who][kind].inbound[field];
      return {
        stage: name,
        line: who,
        concealed: of('microphone', 'concealedSamples') / of('microphone', 'totalSamplesReceived'),
        frames: of('camera', 'framesDecoded') / (STAGE / 1000),
        freezes: of('camera', 'freezeCount'),
        kilobits: (8 * of('camera', 'bytesReceived')) / STAGE,
        widths: [...widths[who]],
      };
    });
    const layers = Object.keys(sent).filter((rid) => sent[rid] - sentBefore[rid] > 5).toSorted();
    process.stderr.write(`${name}: ${JSON.stringify({ layers, rows })}\n`);
    return { stage: name, layers, rows };
  }

  const stages = [];
  come('without loss', first);
  await ready('without loss');
  stages.push(await stage('the best line alone', 10_000));
  for (const [at, name] of Object.keys(OTHERS).entries()) come(name, lines[at]);
  await Promise.all(Object.keys(OTHERS).map(ready));
  stages.push(await stage('all ten', 20_000));
  for (const [quality, name] of [['low', 'all want the lowest layer'], ['medium', 'all want the middle layer'], ['high', 'all want the best layer']]) {
    for (const viewer of Object.values(viewers)) viewer.wish(quality);
    stages.push(await stage(name, 15_000));
  }
  // Who is left has a line that carries the lowest layer alone.
  const left = '300 kbit/s';
  for (const name of Object.keys(viewers).filter((one) => one !== left)) {
    await viewers[name].close();
    delete viewers[name];
  }
  stages.push(await stage('the worst line alone', 20_000));
  console.log(JSON.stringify(stages));
} finally {
  await own.closeAll();
}
