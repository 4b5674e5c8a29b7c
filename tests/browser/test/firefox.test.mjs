// Chromium and Firefox in one meeting.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Belongings, Participant, serveHarness } from '../lib/browsers.mjs';
import { startFirefox } from '../lib/firefox.mjs';
import { toneOf } from '../lib/media.mjs';
import { Server, token } from '../lib/server.mjs';
import { untilValue } from '../lib/waiting.mjs';

for (const singleConnection of [true, false]) {
  const endpoint = singleConnection ? 'one connection' : 'two connections';
  test(`Chromium and Firefox see and hear each other (${endpoint})`, { timeout: 150_000 }, async (t) => {
    const own = new Belongings();
    t.after(() => own.closeAll());
    const server = own.add(await Server.start(), () => server.stop());
    const harness = own.add(await serveHarness());
    const room = `firefox-${singleConnection}`;

    const chromium = own.add(
      await Participant.join({ server, harnessUrl: harness.url, room, number: 6, identity: 'chromium', singleConnection }),
      () => chromium.leave(),
    );
    const firefox = own.add(await startFirefox(toneOf(9)), () => firefox.close());
    const page = await firefox.newPage();
    await page.goto(harness.url);
    await page.evaluate((o) => window.joinRoom(o), {
      url: server.socketUrl,
      token: token({ room, identity: 'firefox' }),
      singleConnection,
      generated: { number: 9 },
    });

    const near = (hertz, number) => Math.abs(hertz - toneOf(number)) < 20;
    await untilValue('Chromium sees and hears Firefox', () => chromium.received(1000), ({ firefox: f }) => f?.number === 9 && near(f.hertz, 9));
    await untilValue('Firefox sees Chromium', () => page.evaluate(() => {
      const video = document.querySelector('video[data-identity=chromium]');
      return video && window.receiving.numberShownBy(video);
    }), (number) => number === 6);
    await untilValue('Firefox hears Chromium', () => page.evaluate(() => window.toneRecordedFrom('chromium')), (hertz) => near(hertz, 6));
    assert.equal((await chromium.inboundStats('firefox')).codec, 'video/VP8');
  });
}
