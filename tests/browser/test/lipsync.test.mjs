// Sound and picture of one participant are played in time with each other, and the reports that this rests on are right.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { NOTICED, median } from '../lib/media.mjs';
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

// Over one connection: over two, clients need a stream of its own for each track.
test('lips move with the voice', { timeout: 120_000 }, async (t) => {
  const own = new Belongings();
  t.after(() => own.closeAll());
  const common = { server, harnessUrl: harness.url, room: 'lips', singleConnection: true, camera: false, microphone: false };
  const sender = own.add(await Participant.join({ ...common, number: 1, identity: 'sender' }), () => sender.leave());
  const receiver = own.add(await Participant.join({ ...common, number: 2, identity: 'receiver' }), () => receiver.leave());
  await sender.evaluate(() => window.stamped.publish(window.room));
  await until('frames come', async () => (await receiver.inboundStats('sender'))?.framesDecoded > 10);
  await until('sound comes', async () => (await receiver.inboundStats('sender', 'microphone'))?.packetsReceived > 10);

  // What shares a stream is played in time with each other.
  const streams = await receiver.evaluate(() => ['camera', 'microphone'].map((source) =>
    window.room.remoteParticipants.get('sender').getTrackPublication(source).track.mediaStream.id));
  assert.match(streams[0], /^PA_\w+\|camera$/);
  assert.equal(streams[1], streams[0]);

  await receiver.evaluate(() => window.stamped.watch(window.room, 'sender'));
  await untilValue('the last seven flashes come with their beeps', () => receiver.evaluate(() => window.offsets.slice(-7)),
    (offsets) => offsets.length === 7 && Math.abs(median(offsets)) <= NOTICED, { patience: 60_000, interval: 1000 });

  // The reports' clock is the sender's, which is this machine's, and they count what came.
  const reports = await untilValue('both are reported', () => receiver.evaluate(() => window.receiving.reports(window.room, 'sender')),
    ({ camera, microphone }) => camera.remote?.reportsSent > 3 && microphone.remote?.reportsSent > 3);
  for (const source of ['camera', 'microphone']) {
    const { inbound, remote } = reports[source];
    const age = remote.timestamp - remote.remoteTimestamp;
    assert.ok(Math.abs(age) < 100, `a report of the ${source} came ${age} ms after its own time`);
    const counted = inbound.packetsReceived + inbound.packetsLost;
    // What came since the report, and before the receiver listened.
    assert.ok(Math.abs(remote.packetsSent - counted) < 150, `${remote.packetsSent} packets of the ${source} sent, ${counted} received or lost`);
  }
  // Nothing more is sent: the last report counts everything that came, and the few packets before the receiver had its keys.
  await sender.evaluate(() => Promise.all([...window.room.localParticipant.trackPublications.values()].map((one) => one.mute())));
  await untilValue('the last reports count what came', async () => {
    const { camera, microphone } = await receiver.evaluate(() => window.receiving.reports(window.room, 'sender'));
    return [camera, microphone].map(({ inbound, remote }) => [remote.packetsSent - inbound.packetsReceived - inbound.packetsLost, remote.bytesSent - inbound.bytesReceived]);
  }, (missing) => missing.every(([packets, bytes]) => packets >= 0 && packets <= 10 && bytes >= packets && bytes <= packets * 1500));
});
