// Sound and picture of one participant are played in time with each other, and the reports that this rests on are right.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
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

/** People notice when a picture is further than this from its sound (ITU-R BT.1359), in milliseconds. */
const NOTICED = 45;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

for (const [singleConnection, delay] of [[true, 300], [false, 300], [true, 0]]) {
  const how = `${singleConnection ? 'one connection' : 'two connections'}, pictures ${delay} ms late`;
  test(`lips move with the voice (${how})`, { timeout: 120_000 }, async (t) => {
    const own = new Belongings();
    t.after(() => own.closeAll());
    const common = { server, harnessUrl: harness.url, room: `lips-${singleConnection}-${delay}`, singleConnection, camera: false, microphone: false };
    const sender = own.add(await Participant.join({ ...common, number: 1, identity: 'sender' }), () => sender.leave());
    const receiver = own.add(await Participant.join({ ...common, number: 2, identity: 'receiver' }), () => receiver.leave());
    await sender.evaluate((o) => window.stamped.publish(window.room, o), { delay });
    await until('frames come', async () => (await receiver.inboundStats('sender'))?.framesDecoded > 10);
    await receiver.evaluate(() => window.stamped.watch(window.room, 'sender'));
    await untilValue('the last seven flashes come with their beeps', () => receiver.evaluate(() => window.offsets.slice(-7)), (offsets) => {
      console.log(offsets.map(Math.round).join(' '));
      return offsets.length === 7 && Math.abs(median(offsets)) <= NOTICED;
    }, { patience: 60_000, interval: 1000 });
    console.log(await receiver.evaluate(() => window.receiving.reports(window.room, 'sender')));
  });
}
