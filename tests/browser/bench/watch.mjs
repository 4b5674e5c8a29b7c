// What a viewer sees and hears while a line does what it does, by the viewer's own statistics and the line's counts.

import { until } from '../lib/waiting.mjs';

/** Between looks, in milliseconds. */
const LOOK = 250;

/** Directions of a line at whose end `a` this runs. */
export const DOWN = 'b_to_a';
export const UP = 'a_to_b';

/** Steps of a line with a queue of so many milliseconds, which carries so many kbit/s from so many seconds on. */
export const rates = (direction, queue_ms, ...steps) => steps.map(([at, rate_kbit]) => ({ at, set: { direction, delay_ms: 25, loss: 0, rate_kbit, queue_ms } }));

/**
 * What `report` tells of a viewer in so many seconds, while `line` does its `steps`. Without a line that can be told what
 * to do, nothing is known of its queue.
 */
export async function watch(report, seconds, { line, steps = [{ set: {} }], direction = DOWN } = {}) {
  await until('the viewer sees', async () => (await report()).camera?.inbound?.framesDecoded > 5, { patience: 30_000 });
  const looks = [];
  let rate = steps[0].set.rate_kbit ?? 0;
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
      ({ rate_kbit: rate = rate } = set);
    }
    const [{ camera, microphone }, counts] = await Promise.all([report(), line?.counts()]);
    const picture = camera.inbound;
    const sound = microphone.inbound;
    const samples = sound.totalSamplesReceived - last.totalSamplesReceived;
    // No new report is no news.
    if (sound !== last) hears.push([at, samples > 0 ? (sound.concealedSamples - last.concealedSamples) / samples : 1]);
    last = sound;
    const queue = rate ? Math.round((counts[direction].queued.bytes * 8) / rate) : 0;
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
