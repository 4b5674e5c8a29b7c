// Photographs every page and state of the product at 1440 and 360 px, in both languages and in large type, and runs
// axe on each. Starts its own server and makes its own meetings.
//
//   npm run screenshots [-- folder]
//
// Writes PNGs into `folder`; without one, into the build folder's `screenshots`. `ONLY` takes a part of a picture's
// name (`ONLY=zh-360`, `ONLY=chat`). Ends with 1 when anything was found or a state was not reached.

import { join, resolve } from 'node:path';
import { Belongings, serveHarness, startChromium } from '../lib/browsers.mjs';
import { startProxy } from '../lib/proxy.mjs';
import { startRelay, through } from '../lib/relay.mjs';
import { buildFolder, Server } from '../lib/server.mjs';
import { Camera } from './camera.mjs';
import { directory, furnish } from './directory.mjs';
import { Guests } from '../lib/guests.mjs';

const WIDE = { width: 1440, height: 900 };
const PHONE = { width: 360, height: 740 };
const zh = { language: 'zh' };
const en = { language: 'en' };

/** Each lane has a meeting of its own, so that the lanes can go side by side: much of the time is waiting. */
const LANES = [
  [
    { name: 'zh-1440', viewport: WIDE, preferences: zh },
    { name: 'zh-360', viewport: PHONE, preferences: zh },
    { name: 'zh-1440-large', viewport: WIDE, preferences: { ...zh, largeType: true } },
  ],
  [
    { name: 'en-1440', viewport: WIDE, preferences: en },
    { name: 'en-360', viewport: PHONE, preferences: en },
    { name: 'zh-360-large', viewport: PHONE, preferences: { ...zh, largeType: true } },
  ],
];

const FAULTS = [
  ['not-allowed', { error: 'NotAllowedError', message: 'Permission denied', permission: 'denied' }],
  ['system-denied', { error: 'NotAllowedError', message: 'Permission denied by system', permission: 'granted' }],
  ['not-found', { error: 'NotFoundError', message: 'Requested device not found', permission: 'prompt' }],
  ['not-readable', { error: 'NotReadableError', message: 'Could not start source', permission: 'prompt' }],
  ['overconstrained', { error: 'OverconstrainedError', message: '', permission: 'prompt' }],
  ['insecure', { noDevices: true, insecure: true }],
  ['in-app', { noDevices: true, userAgent: 'Mozilla/5.0 (Linux; Android 14; wv) AppleWebKit/537.36 Chrome/130.0 Mobile MicroMessenger/8.0.50' }],
];
const DEPARTURES = ['self', 'removed', 'ended', 'elsewhere', 'unreachable', 'refused', 'notFound', 'full', 'unsupported'];

/** How many are in the meetings that are photographed, with the one who looks. */
const SIZES = { pair: 2, small: 5, office: 12, county: 61 };

const only = process.env.ONLY ?? '';
const camera = new Camera(resolve(process.argv[2] ?? join(buildFolder(), 'screenshots')));
const own = new Belongings();
const begin = Date.now();

function said(what) {
  console.log(`${((Date.now() - begin) / 1000).toFixed(0).padStart(4)} s  ${what}`);
}

/** One variant of the product in one meeting. */
class Variant {
  constructor({ name, viewport, preferences }, { browser, server, code, guests }) {
    Object.assign(this, { name, viewport, preferences, browser, server, code, guests });
  }

  get isPlain() {
    return this.preferences.largeType !== true;
  }

  get isWide() {
    return this.viewport === WIDE;
  }

  async context({ name = '孙晓梅', userAgent } = {}) {
    const context = await this.browser.newContext({
      viewport: this.viewport, locale: 'zh-CN', permissions: ['camera', 'microphone'], ...(userAgent ? { userAgent } : {}),
    });
    context.setDefaultTimeout(30_000);
    await context.addInitScript((preferences) => {
      // Only at the first visit, so that choices made on the page stay.
      if (localStorage.getItem('terrace.preferences') === null) localStorage.setItem('terrace.preferences', JSON.stringify(preferences));
    }, { ...this.preferences, name });
    return context;
  }

  /** Reaches one state in a page of its own and photographs it; a state that is not reached is a finding. */
  async state(name, act, options) {
    if (!`${this.name}-${name}`.includes(only)) return;
    const context = await this.context(options);
    try {
      await act(await context.newPage());
    } catch (error) {
      camera.found(`${this.name} ${name}: ${String(error).split('\n')[0]}`);
    } finally {
      await context.close();
    }
  }

  shoot(page, state) {
    return camera.shoot(page, `${this.name}-${state}`);
  }

  shootWhole(page, state) {
    return camera.shootWhole(page, `${this.name}-${state}`);
  }

  /** From the link into the meeting. */
  async enter(page, { listenOnly = false, origin = this.server.url } = {}) {
    await page.goto(`${origin}/m/${this.code}`);
    await at(page, listenOnly ? 'check-listen-only' : 'check-continue').click();
    await at(page, 'meeting').waitFor();
  }
}

const at = (page, id) => page.locator(`[data-testid="${id}"]`);

/** Until as many are in the meeting, and the pictures that are shown move. */
async function everybodyIsThere(page, count) {
  await page.waitForFunction((n) => document.querySelector('[data-testid="people-count"]')?.textContent?.includes(String(n)), count);
  await page.waitForFunction(() => [...document.querySelectorAll('[data-testid="tile"][data-camera="on"] video')].every((video) => video.videoWidth > 0));
}

/** Narrow screens have most of the bar behind "more". */
async function openFromBar(page, id) {
  if (!(await at(page, id).isVisible())) await at(page, 'more').click();
  await at(page, id).click();
}

async function joining(v) {
  const toJoin = async (page) => {
    await page.goto(`${v.server.url}/join`);
    await at(page, 'join-submit').waitFor();
  };
  await v.state('join', async (page) => {
    await toJoin(page);
    await v.shoot(page, 'join');
    await at(page, 'join-submit').click();
    await v.shoot(page, 'join-empty');
  }, { name: '' });
  // Answered here and not by the server, whose limit on guessed codes must not be used up.
  for (const [state, shown, answer] of [
    ['join-wrong-code', '.field-error', { status: 404, json: { code: 'meeting_not_found' } }],
    ['join-too-many', '[data-testid="join-error"]', { status: 429, headers: { 'Retry-After': '30' }, json: { code: 'too_many_attempts' } }],
  ]) {
    await v.state(state, async (page) => {
      await page.route('**/api/meetings/*', (route) => route.fulfill(answer));
      await toJoin(page);
      await at(page, 'join-name').fill('孙晓梅');
      await at(page, 'join-code').fill('9999999999');
      await at(page, 'join-submit').click();
      await page.locator(shown).waitFor();
      await v.shoot(page, state);
    }, { name: '' });
  }
  await v.state('name', async (page) => {
    await page.goto(`${v.server.url}/m/${v.code}`);
    await at(page, 'join-name').waitFor();
    await v.shoot(page, 'name');
  }, { name: '' });
}

async function leaving(v) {
  // Differing in words alone: where the words are large or the screen small, one with and one without a way back is enough.
  for (const reason of v.isPlain && v.isWide ? DEPARTURES : ['self', 'unreachable', 'notFound']) {
    await v.state(`left-${reason}`, async (page) => {
      await page.goto(`${v.server.url}/join`);
      await page.evaluate(([code, why]) => {
        sessionStorage.setItem('terrace.departure', JSON.stringify({ code, reason: why, at: Date.now(), attendedMs: 2_530_000 }));
      }, [v.code, reason]);
      await page.goto(`${v.server.url}/left`);
      await at(page, 'left-reason').waitFor();
      await v.shoot(page, `left-${reason}`);
    });
  }
}

async function deviceCheck(v) {
  await v.state('check', async (page) => {
    // A browser that has not been asked yet, so that the first question is seen.
    await page.addInitScript(() => {
      navigator.permissions.query = () => Promise.reject(new TypeError());
    });
    await page.goto(`${v.server.url}/m/${v.code}`);
    await at(page, 'check-mic').waitFor();
    await v.shoot(page, 'check-1-microphone');
    await at(page, 'check-mic').click();
    await at(page, 'check-camera').waitFor();
    await page.locator('[data-testid="check-level"][data-heard]').waitFor();
    await v.shoot(page, 'check-2-camera');
    await at(page, 'check-camera').click();
    await at(page, 'check-continue').waitFor();
    await page.waitForFunction(() => document.querySelector('[data-testid="check-preview"] video')?.videoWidth > 0);
    await v.shoot(page, 'check-3-ready');
    await v.shootWhole(page, 'check-3-ready');
    await at(page, 'check-speaker').click();
    await at(page, 'check-not-heard').click();
    await v.shoot(page, 'check-4-speaker');
    await v.shootWhole(page, 'check-4-speaker');
  });
  for (const [fault, how] of FAULTS) {
    await v.state(`help-${fault}`, async (page) => {
      await page.addInitScript((wrong) => {
        if (wrong.insecure) Object.defineProperty(window, 'isSecureContext', { value: false });
        if (wrong.noDevices) {
          Object.defineProperty(navigator, 'mediaDevices', { value: undefined });
          return;
        }
        navigator.permissions.query = () => Promise.resolve(Object.assign(new EventTarget(), { state: wrong.permission }));
        navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException(wrong.message, wrong.error));
      }, how);
      await page.goto(`${v.server.url}/m/${v.code}`);
      await at(page, 'check-mic').waitFor();
      if (!(await at(page, 'check-help').isVisible())) await at(page, 'check-mic').click();
      await at(page, 'check-help').waitFor();
      await v.shoot(page, `help-${fault}`);
      await v.shootWhole(page, `help-${fault}`);
    }, { userAgent: how.userAgent });
  }
}

async function alone(v) {
  await v.state('meeting-1', async (page) => {
    await v.enter(page);
    await everybodyIsThere(page, 1);
    await v.shoot(page, 'meeting-1');
  });
}

async function pair(v) {
  await v.state('meeting-2', async (page) => {
    await v.enter(page);
    await everybodyIsThere(page, SIZES.pair);
    await v.shoot(page, 'meeting-2');
  });
}

async function small(v) {
  await v.state('meeting-5', async (page) => {
    await v.enter(page);
    await everybodyIsThere(page, SIZES.small);
    await page.locator('[data-testid="quality"][data-quality="excellent"]').first().waitFor();
    await v.shoot(page, 'meeting-5');
    await at(page, 'hand').click();
    await at(page, 'mic').click();
    await v.guests.raiseHand(true);
    await page.locator('[data-testid="mic"][aria-pressed="false"]').waitFor();
    await v.shoot(page, 'meeting-hand-muted');
    await openFromBar(page, 'layout');
    await page.locator('[data-testid="stage"][data-mode="speaker"]').waitFor();
    await v.shoot(page, 'meeting-speaker');
    await openFromBar(page, 'chat');
    await v.guests.write('各乡镇请在十点前把水位报上来。');
    await at(page, 'chat-message').first().waitFor();
    await at(page, 'chat-input').fill('青山镇已报：12.3 米，比昨天涨了 0.4 米，水库闸门已按预案开到第二档，值班电话 24 小时有人接。');
    await at(page, 'chat-send').click();
    await at(page, 'chat-message').nth(1).waitFor();
    await v.shoot(page, 'chat');
    await page.keyboard.press('Escape');
    await openFromBar(page, 'participants');
    await at(page, 'roster').waitFor();
    await v.shoot(page, 'participants');
    await v.guests.raiseHand(false);
    await at(page, 'panel-close').click();
    await openFromBar(page, 'settings');
    await at(page, 'settings-dialog').waitFor();
    await v.shoot(page, 'settings');
    await at(page, 'settings-done').scrollIntoViewIfNeeded();
    await v.shoot(page, 'settings-end');
    await at(page, 'settings-shortcuts').click();
    await at(page, 'shortcuts-dialog').waitFor();
    await v.shoot(page, 'shortcuts');
    await at(page, 'shortcuts-dialog-close').click();
    if (await at(page, 'more').isVisible()) {
      await at(page, 'more').click();
      await at(page, 'more-dialog').waitFor();
      await v.shoot(page, 'more');
    }
  });
  await v.state('screen-share', async (page) => {
    await v.enter(page, { listenOnly: true });
    await v.guests.share();
    await page.waitForFunction(() => document.querySelector('[data-testid="tile"][data-kind="screen"] video')?.videoWidth > 0);
    await v.shoot(page, 'screen-share');
    await v.guests.stopSharing();
  });
  await v.state('own-share', async (page) => {
    await v.enter(page, { listenOnly: true });
    await page.evaluate(() => {
      // A drawn page instead of the test machine's screen, which has none.
      const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
      canvas.getContext('2d').fillRect(0, 0, 1280, 720);
      navigator.mediaDevices.getDisplayMedia = () => Promise.resolve(canvas.captureStream(5));
    });
    await openFromBar(page, 'share');
    await at(page, 'own-share').waitFor();
    await v.shoot(page, 'own-share');
  });
}

/** A line whose halves are cut and mended. */
async function startLine(page, server) {
  const relay = await startRelay(server.udpPort);
  const proxy = await startProxy(server.port);
  await through(relay)(page);
  return {
    media: relay,
    signalling: proxy,
    origin: `http://127.0.0.1:${proxy.port}`,
    close() {
      relay.close();
      proxy.close();
    },
  };
}

const banner = (page, kind, phase) => page.locator(`[data-testid="reconnect-banner"][data-kind="${kind}"][data-phase="${phase}"]`);

/** One half of the line, the other, and both, each from the first moment until all is back. */
async function reconnecting(v) {
  const lines = {
    media: (line) => [line.media],
    signalling: (line) => [line.signalling],
    everything: (line) => [line.signalling, line.media],
  };
  for (const [kind, halvesOf] of Object.entries(lines)) await v.state(`reconnecting-${kind}`, async (page) => {
    const line = await startLine(page, v.server);
    try {
      await v.enter(page, { listenOnly: true, origin: line.origin });
      await everybodyIsThere(page, SIZES.small);
      if (kind === 'signalling') await v.shoot(page, 'meeting-listen-only');
      for (const half of halvesOf(line)) half.cut();
      // Media that is away is seen when the time for a grey dot is over.
      for (const phase of kind === 'signalling' ? ['quiet', 'words', 'retry'] : ['words', 'retry']) {
        // When media alone has been away for long, all of it begins anew.
        await banner(page, kind, phase).or(banner(page, 'everything', phase)).waitFor();
        await v.shoot(page, `reconnecting-${kind}-${phase}`);
      }
      for (const half of halvesOf(line)) half.mend();
      // All may be back before the button is pressed.
      await at(page, 'reconnect-retry').click({ timeout: 3000 }).catch(() => {});
      await page.locator('[data-testid="reconnect-banner"]').waitFor({ state: 'detached' });
      await v.shoot(page, `reconnecting-${kind}-back`);
    } finally {
      line.close();
    }
  });
}

/** What stands on a picture that is not as it should be. */
async function notices(v) {
  await v.state('tile-notices', async (page) => {
    await v.enter(page, { listenOnly: true });
    await everybodyIsThere(page, SIZES.small);
    // As the library is told by the server: the machine has no line that can be made bad for one tile alone.
    const be = (state) => page.evaluate(({ own, others, paused }) => {
      const { room } = window.__terrace;
      const set = (participant, quality) => participant.setConnectionQuality(quality);
      set(room.localParticipant, { excellent: 2, poor: 0 }[own]);
      [...room.remoteParticipants.values()].forEach((participant, index) => {
        set(participant, { excellent: 2, poor: 0, lost: 3 }[others[index] ?? 'excellent']);
        for (const publication of participant.videoTrackPublications.values()) {
          publication.track?.setStreamState(paused ? 'paused' : 'active');
          room.emit('trackStreamStateChanged', publication, paused ? 'paused' : 'active', participant);
        }
      });
    }, state);
    for (const [name, notice, state] of [
      ['tile-lost-and-poor', 'lost', { own: 'excellent', others: ['lost', 'poor', 'lost'], paused: false }],
      ['tile-paused-for-the-line', 'pausedForLine', { own: 'poor', others: [], paused: true }],
      ['tile-paused-for-the-node', 'pausedForNode', { own: 'excellent', others: [], paused: true }],
    ]) {
      await be(state);
      await page.locator(`[data-testid="tile"][data-notice="${notice}"]`).first().waitFor();
      await v.shoot(page, name);
    }
  });
}

async function office(v) {
  await v.state('meeting-12', async (page) => {
    await v.enter(page, { listenOnly: true });
    await everybodyIsThere(page, SIZES.office);
    await v.shoot(page, 'meeting-12');
    await openFromBar(page, 'layout');
    await page.locator('[data-testid="stage"][data-mode="speaker"]').waitFor();
    await v.shoot(page, 'meeting-12-speaker');
  });
}

async function county(v) {
  await v.state('meeting-61', async (page) => {
    await v.enter(page, { listenOnly: true });
    await everybodyIsThere(page, SIZES.county);
    await v.shoot(page, 'meeting-61');
    await at(page, 'page-next').click();
    await v.shoot(page, 'meeting-61-page-2');
    await openFromBar(page, 'participants');
    await at(page, 'roster').waitFor();
    await v.shoot(page, 'meeting-61-participants');
  });
}

async function lane(descriptions, { browser, harness, server, furnished }, isFirst) {
  const { code } = server.createMeeting('青山县防汛视频会商');
  const guests = own.add(await Guests.open(browser, harness.url, server, code));
  const variants = descriptions.map((description) => new Variant(description, { browser, server, code, guests }));
  const each = async (what, act, chosen = variants) => {
    for (const variant of chosen) {
      await act(variant);
      said(`${variant.name} ${what}`);
    }
  };
  await each('joining', joining);
  await each('leaving', leaving);
  await each('directory', (variant) => directory(variant, furnished));
  await each('device check', deviceCheck);
  await each('alone', alone);
  await guests.be(SIZES.pair - 1);
  await each('pair', pair);
  await guests.be(SIZES.small - 1);
  await each('small meeting', small);
  await each('notices', notices);
  // The longest of all: nearly a minute of waiting each. On a wide screen it has the same room in either language and type.
  const isTelling = (variant) => !variant.isWide || (variant.isPlain && variant.preferences === zh);
  await each('reconnecting', reconnecting, variants.filter(isTelling));
  await guests.be(SIZES.office - 1);
  await each('office', office);
  if (!isFirst) return;
  await guests.be(SIZES.county - 1);
  await each('county', county, variants.filter((variant) => variant.isPlain));
}

try {
  const server = own.add(await Server.start(), () => server.stop());
  const harness = own.add(await serveHarness());
  const browser = own.add(await startChromium(6));
  const furnished = await furnish(browser, server);
  await Promise.all(LANES.map((descriptions, index) => lane(descriptions, { browser, harness, server, furnished }, index === 0)));
} finally {
  await own.closeAll();
}
said(`${camera.shots} pictures, ${camera.findings.length} findings`);
for (const what of camera.findings) console.log(`- ${what}`);
process.exit(camera.findings.length > 0 ? 1 : 0);
