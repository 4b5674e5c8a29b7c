// Tracks that come and go for hours must not make the description grow: m-lines are used again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { Server } from '../lib/server.mjs';
import { untilValue } from '../lib/waiting.mjs';

const ROUNDS = 8;

for (const singleConnection of [true, false]) {
  const endpoint = singleConnection ? 'one connection' : 'two connections';
  test(`tracks that come and go are seen each time and m-lines do not pile up (${endpoint})`, { timeout: 180_000 }, async (t) => {
    const own = new Belongings();
    t.after(() => own.closeAll());
    const server = own.add(await Server.start(), () => server.stop());
    const harness = own.add(await serveHarness());
    const join = async (number, identity) => own.add(
      await Participant.join({ server, harnessUrl: harness.url, room: 'reuse', number, identity, singleConnection }),
      () => {},
    );
    const sender = await join(3, 'sender');
    own.add(sender, () => sender.leave());
    const viewer = await join(5, 'viewer');
    own.add(viewer, () => viewer.leave());
    const sees = (what) => untilValue(what, () => viewer.received(200), (received) => received.sender?.number === 3);
    const isGone = () => untilValue('the picture is gone', () => viewer.evaluate(() => {
      const publication = room.remoteParticipants.get('sender')?.getTrackPublication('camera');
      return !publication?.track;
    }), (gone) => gone);
    const sections = () => viewer.evaluate(() => {
      const { publisher, subscriber } = room.engine.pcManager;
      const connection = (subscriber ?? publisher)._pc ?? (subscriber ?? publisher).pc;
      return connection.getTransceivers().length;
    });
    await sees('the first picture is seen');
    const sids = () => Promise.all([sender, viewer].map((one) => one.evaluate(() => room.localParticipant.sid)));
    const sessions = await sids();
    const before = await sections();
    for (let round = 0; round < ROUNDS; round += 1) {
      await sender.evaluate(async () => {
        const { track } = room.localParticipant.getTrackPublication('camera');
        window.kept = track;
        await room.localParticipant.unpublishTrack(track, false);
      });
      await isGone();
      await sender.evaluate(() => room.localParticipant.publishTrack(window.kept, { source: 'camera', simulcast: true }));
      await sees(`published again, round ${round}`);
      await viewer.evaluate(() => room.remoteParticipants.get('sender').getTrackPublication('camera').setSubscribed(false));
      await isGone();
      await viewer.evaluate(() => room.remoteParticipants.get('sender').getTrackPublication('camera').setSubscribed(true));
      await sees(`subscribed again, round ${round}`);
    }
    // A description that a browser refuses would be hidden by a new session.
    assert.deepEqual(await sids(), sessions);
    const after = await sections();
    assert.ok(after <= before + 3, `${before} m-lines before, ${after} after ${ROUNDS} rounds`);
  });
}
