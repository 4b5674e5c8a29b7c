// Starts browsers with fake devices, and serves the harness page to them.

import { chromium } from 'playwright-core';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cameraFile, microphoneFile } from './media.mjs';
import { token } from './server.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const harness = join(here, '../harness');

/** Where Debian puts Chromium; elsewhere say so by `CHROMIUM`. */
export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Debian's Firefox ESR; elsewhere say so by `FIREFOX`. */
export const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

const CHROMIUM_ARGUMENTS = [
  '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream', '--autoplay-policy=no-user-gesture-required',
  '--auto-select-desktop-capture-source=Entire screen', '--auto-accept-this-tab-capture',
];

/** The script that reads numbers and tones, for injection into any page. */
export const receivingScript = join(harness, 'receiving.js');

/** A Chromium whose camera shows `number` and whose microphone beeps at that number's tone. */
export async function startChromium(number, { width, height, rate } = {}, executable = CHROMIUM) {
  const launched = await chromium.launchServer({
    executablePath: executable,
    headless: true,
    chromiumSandbox: false,
    args: [
      ...CHROMIUM_ARGUMENTS,
      `--use-file-for-fake-video-capture=${cameraFile(number, { width, height, rate })}`,
      `--use-file-for-fake-audio-capture=${microphoneFile(number)}`,
    ],
  });
  const browser = await chromium.connect(launched.wsEndpoint());
  return {
    newContext: (options) => browser.newContext(options),
    close: () => launched.close(),
    /** Ends the browser as a crash would: nobody says goodbye. */
    kill: () => launched.kill(),
  };
}

/** Serves the harness page; browsers take 127.0.0.1 for a secure context, so cameras work there. */
export async function serveHarness() {
  const files = {
    '/': join(harness, 'index.html'),
    '/page.js': join(harness, 'page.js'),
    '/receiving.js': receivingScript,
    '/stamped.js': join(harness, 'stamped.js'),
    '/livekit-client.umd.js': join(here, '../node_modules/livekit-client/dist/livekit-client.umd.js'),
  };
  const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };
  const find = (url) => {
    const path = files[new URL(url, 'http://localhost').pathname];
    return path ? { status: 200, contentType: types[extname(path)], body: readFileSync(path) } : { status: 404 };
  };
  const server = createServer((request, response) => {
    const { status, contentType, body } = find(request.url);
    response.writeHead(status, contentType ? { 'content-type': contentType } : {}).end(body);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const url = `http://127.0.0.1:${server.address().port}/`;
  /** For pages in another network, which can't reach it: the browser is handed the files, and takes them for the Internet's. */
  const hand = async (page) => {
    await page.route(`${url}**`, (route) => route.fulfill(find(route.request().url())));
    await page.context().grantPermissions(['local-network-access']);
  };
  return { url, hand, close: () => server.close() };
}

/** One browser with one harness page in one room. */
export class Participant {
  static async join({ server, harnessUrl, room, number, identity = `participant-${number}`, camera = {}, grants, socketUrl, executable, prepare, ...options }) {
    const browser = await startChromium(number, camera || {}, executable);
    try {
      const context = await browser.newContext({ ignoreHTTPSErrors: true });
      const page = await context.newPage();
      const participant = new Participant();
      Object.assign(participant, { browser, page, identity, number });
      page.setDefaultTimeout(60_000);
      await prepare?.(page);
      await page.goto(harnessUrl);
      participant.connectedAfter = await page.evaluate((o) => window.joinRoom(o), {
        url: socketUrl ?? server.socketUrl, token: token({ room, identity, grants }), ...(camera ? { width: camera.width, height: camera.height } : { camera: false }), ...options,
      });
      return participant;
    } catch (failure) {
      await browser.close();
      throw failure;
    }
  }

  received(milliseconds) {
    return this.page.evaluate((ms) => window.receiving.received(window.room, ms), milliseconds);
  }

  inboundStats(identity, source) {
    return this.page.evaluate(([i, s]) => window.receiving.inboundStats(window.room, i, s), [identity, source]);
  }

  evaluate(code, argument) {
    return this.page.evaluate(code, argument);
  }

  leave() {
    return this.browser.close();
  }

  kill() {
    return this.browser.kill();
  }
}

/** Closes whatever was opened, newest first, even when one of them fails to close. */
export class Belongings {
  #all = [];

  add(thing, close) {
    this.#all.push(close ?? (() => thing.close()));
    return thing;
  }

  async closeAll() {
    for (const close of this.#all.splice(0).reverse()) await Promise.resolve(close()).catch(() => {});
  }
}
