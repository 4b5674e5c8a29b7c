// How soon somebody who joins in Chromium sees a picture, on both endpoints in turn. Run by `cargo xtask bench session`;
// prints its results as JSON.

import { Belongings, Participant, serveHarness, startChromium } from '../lib/browsers.mjs';
import { Server, token } from '../lib/server.mjs';
import { until } from '../lib/waiting.mjs';

const JOINS = Number(process.argv[2] ?? 30);
const room = 'bench';
const own = new Belongings();
const seconds = { one: [], two: [] };
let version;
try {
  const server = own.add(await Server.start(), () => server.stop());
  const harness = own.add(await serveHarness());
  const sender = own.add(await Participant.join({ server, harnessUrl: harness.url, room, number: 5, identity: 'sender', microphone: false }), () => sender.leave());
  const browser = own.add(await startChromium(1));
  const context = await browser.newContext();
  for (let turn = 0; turn < JOINS; turn += 1) {
    for (const kind of Object.keys(seconds)) {
      const page = await context.newPage();
      version ??= await page.evaluate(() => navigator.userAgent.match(/Chrome\/(\d+)/)[1]);
      await page.goto(harness.url);
      await page.evaluate((options) => window.joinRoom(options), {
        url: server.socketUrl, token: token({ room, identity: `watcher-${turn}-${kind}` }),
        singleConnection: kind === 'one', camera: false, microphone: false,
      });
      const milliseconds = await until('a picture is shown', () => page.evaluate(() => window.firstFrame.sender));
      seconds[kind].push(milliseconds / 1000);
      await page.close();
    }
    if (turn % 10 === 9) console.error(`${turn + 1} of ${JOINS} joins on each endpoint in Chromium`);
  }
} finally {
  await own.closeAll();
}
console.log(JSON.stringify({ version, first_frame: seconds }));
