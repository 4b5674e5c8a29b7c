// Photographs every page and state of the client against a running Terrace and runs axe on each.
//
//   TERRACE_URL=http://127.0.0.1:8080 TERRACE_CODE=1234567890 npm run screenshots [-- folder]
//
// Optional: CHROMIUM (path of the browser), ONLY (part of a variant's or state's name).
// Writes PNGs to `folder` (default screenshots/); exits 1 when axe finds anything or a state is not reached.
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { chromium } from 'playwright-core';

const base = process.env.TERRACE_URL;
const code = process.env.TERRACE_CODE;
if (!base || !code) {
  console.error('set TERRACE_URL and TERRACE_CODE');
  process.exit(2);
}
const folder = resolve(process.argv[2] ?? 'screenshots');
const only = process.env.ONLY ?? '';
const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
mkdirSync(folder, { recursive: true });

const WIDE = { width: 1440, height: 900 };
const PHONE = { width: 360, height: 740 };
const VARIANTS = [
  { name: 'zh-1440', viewport: WIDE, preferences: { language: 'zh' } },
  { name: 'zh-360', viewport: PHONE, preferences: { language: 'zh' } },
  { name: 'en-1440', viewport: WIDE, preferences: { language: 'en' } },
  { name: 'en-360', viewport: PHONE, preferences: { language: 'en' } },
  { name: 'zh-1440-large', viewport: WIDE, preferences: { language: 'zh', largeType: true } },
  { name: 'zh-360-large', viewport: PHONE, preferences: { language: 'zh', largeType: true } },
];
const GUESTS = ['王建国', '李秀英', '张伟', '刘洋', '陈静', '杨帆', '赵敏', '黄志强', '周涛', '吴桂芳', '徐磊'];
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

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
    '--auto-select-desktop-capture-source=Entire screen',
    '--autoplay-policy=no-user-gesture-required',
  ],
});
let failures = 0;
let shots = 0;

function fail(what) {
  failures++;
  console.error(`FAIL ${what}`);
}

async function contextFor(variant, name = '孙晓梅') {
  const context = await browser.newContext({
    viewport: variant.viewport,
    locale: 'zh-CN',
    ignoreHTTPSErrors: true,
    ...(variant.userAgent === undefined ? {} : { userAgent: variant.userAgent }),
  });
  await context.addInitScript((preferences) => {
    // Only at the first visit, so that choices made on the page stay.
    if (localStorage.getItem('terrace.preferences') === null) localStorage.setItem('terrace.preferences', JSON.stringify(preferences));
  }, { ...variant.preferences, name });
  return context;
}

async function shoot(page, variant, state, options = {}) {
  if (options.settle !== false) await page.waitForTimeout(options.settle ?? 400);
  await page.screenshot({ path: join(folder, `${variant.name}-${state}.png`) });
  shots++;
  await page.evaluate(axeSource);
  const violations = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    });
    return violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, where: nodes.slice(0, 3).map((node) => node.target.join(' ')) }));
  });
  for (const { id, impact, help, where } of violations) fail(`${variant.name} ${state}: axe ${id} (${impact}) ${help}: ${where.join(' | ')}`);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (overflow > 0) fail(`${variant.name} ${state}: ${overflow} px wider than the screen`);
  const small = await page.evaluate(() =>
    [...document.querySelectorAll('button, select, input[type=text], textarea')]
      .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 24)
      .map((element) => element.outerHTML.slice(0, 80)),
  );
  if (small.length > 0) fail(`${variant.name} ${state}: targets below 24 px: ${small.join(' | ')}`);
}

const at = (page, id) => page.locator(`[data-testid="${id}"]`);

/** From the device check into the meeting, by the way the arguments say. */
async function enter(page, { listenOnly = false, search = '' } = {}) {
  await page.goto(`${base}/m/${code}${search}`);
  await at(page, 'check-listen-only').waitFor();
  if (listenOnly) await at(page, 'check-listen-only').click();
  else {
    for (const press of ['check-mic', 'check-camera']) {
      const button = at(page, press);
      await at(page, press).or(at(page, 'check-continue')).or(at(page, 'check-camera')).first().waitFor();
      if (await button.isVisible()) await button.click({ timeout: 3000 }).catch(() => undefined);
    }
    await at(page, 'check-continue').click();
  }
  await at(page, 'meeting').waitFor({ timeout: 30_000 });
}

async function state(variant, name, act) {
  if (only !== '' && !`${variant.name}-${name}`.includes(only)) return;
  try {
    await act();
    console.log(`  ${variant.name} ${name}`);
  } catch (error) {
    fail(`${variant.name} ${name}: ${String(error).split('\n')[0]}`);
  }
}

async function pagesBeforeMeeting(variant) {
  const context = await contextFor(variant, '');
  const page = await context.newPage();
  await state(variant, 'join', async () => {
    await page.goto(`${base}/`);
    await at(page, 'join-submit').waitFor();
    await shoot(page, variant, 'join');
  });
  await state(variant, 'join-empty', async () => {
    await page.goto(`${base}/join`);
    await at(page, 'join-submit').click();
    await shoot(page, variant, 'join-empty');
  });
  await state(variant, 'join-wrong-code', async () => {
    // Answered here, not by the server, whose limit on guessed codes this script must not use up.
    await page.route('**/api/meetings/*', (route) => route.fulfill({ status: 404, json: { code: 'meeting_not_found' } }));
    await page.goto(`${base}/join`);
    await at(page, 'join-name').fill('孙晓梅');
    await at(page, 'join-code').fill('9999999999');
    await at(page, 'join-submit').click();
    await page.locator('.field-error').waitFor();
    await shoot(page, variant, 'join-wrong-code');
    await page.unroute('**/api/meetings/*');
  });
  await state(variant, 'join-too-many', async () => {
    await page.route('**/api/meetings/*', (route) =>
      route.fulfill({ status: 429, headers: { 'Retry-After': '30' }, json: { code: 'too_many_attempts' } }),
    );
    await page.goto(`${base}/join`);
    await at(page, 'join-name').fill('孙晓梅');
    await at(page, 'join-code').fill('9999999999');
    await at(page, 'join-submit').click();
    await at(page, 'join-error').waitFor();
    await shoot(page, variant, 'join-too-many');
    await page.unroute('**/api/meetings/*');
  });
  await context.close();

  const named = await contextFor(variant, '');
  const namePage = await named.newPage();
  await state(variant, 'name', async () => {
    await namePage.goto(`${base}/m/${code}`);
    await at(namePage, 'join-name').waitFor();
    await shoot(namePage, variant, 'name');
  });
  await named.close();

  for (const [reason] of variant.viewport === WIDE && variant.preferences.largeType !== true ? DEPARTURES.map((r) => [r]) : [['self'], ['unreachable']]) {
    await state(variant, `left-${reason}`, async () => {
      const context = await contextFor(variant);
      const page = await context.newPage();
      await page.goto(`${base}/join`);
      await page.evaluate(([meetingCode, why]) => {
        sessionStorage.setItem('terrace.departure', JSON.stringify({ code: meetingCode, reason: why, at: Date.now(), attendedMs: 2_530_000 }));
      }, [code, reason]);
      await page.goto(`${base}/left`);
      await at(page, 'left-reason').waitFor();
      await shoot(page, variant, `left-${reason}`);
      await context.close();
    });
  }
}

async function deviceCheck(variant) {
  await state(variant, 'check', async () => {
    const context = await contextFor(variant);
    await context.addInitScript(() => {
      // A browser that has not been asked yet, so that the first question is seen.
      navigator.permissions.query = () => Promise.reject(new TypeError());
    });
    const page = await context.newPage();
    await page.goto(`${base}/m/${code}`);
    await at(page, 'check-mic').waitFor();
    await shoot(page, variant, 'check-microphone');
    await at(page, 'check-mic').click();
    await at(page, 'check-camera').waitFor();
    await shoot(page, variant, 'check-camera', { settle: 1200 });
    await at(page, 'check-camera').click();
    await at(page, 'check-continue').waitFor();
    await shoot(page, variant, 'check-ready', { settle: 1000 });
    await page.screenshot({ path: join(folder, `${variant.name}-check-ready-whole.png`), fullPage: true });
    await at(page, 'check-speaker').click();
    await at(page, 'check-not-heard').click();
    await page.screenshot({ path: join(folder, `${variant.name}-check-speaker.png`), fullPage: true });
    await context.close();
  });
  for (const [name, fault] of FAULTS) {
    await state(variant, `help-${name}`, async () => {
      const context = await contextFor({ ...variant, userAgent: fault.userAgent });
      await context.addInitScript((how) => {
        if (how.insecure) Object.defineProperty(window, 'isSecureContext', { value: false });
        if (how.noDevices) {
          Object.defineProperty(navigator, 'mediaDevices', { value: undefined });
          return;
        }
        navigator.permissions.query = () => Promise.resolve(Object.assign(new EventTarget(), { state: how.permission }));
        navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException(how.message, how.error));
      }, fault);
      const page = await context.newPage();
      await page.goto(`${base}/m/${code}`);
      await at(page, 'check-mic').waitFor();
      if (!(await at(page, 'check-help').isVisible())) await at(page, 'check-mic').click();
      await at(page, 'check-help').waitFor();
      await shoot(page, variant, `help-${name}`);
      await page.screenshot({ path: join(folder, `${variant.name}-help-${name}-whole.png`), fullPage: true });
      await context.close();
    });
  }
}

async function openFromBar(page, id) {
  if (!(await at(page, id).isVisible())) await at(page, 'more').click();
  await at(page, id).click();
}

const guests = [];
async function haveGuests(count) {
  while (guests.length < count) {
    const name = GUESTS[guests.length];
    const context = await contextFor(VARIANTS[0], name);
    const page = await context.newPage();
    // The first two send a picture; more encoders than that would only burden the machine.
    await enter(page, { listenOnly: guests.length >= 2 });
    guests.push(page);
  }
}

async function withObserver(variant, name, act) {
  await state(variant, name, async () => {
    const context = await contextFor(variant);
    const page = await context.newPage();
    try {
      await act(page);
    } finally {
      await context.close();
    }
  });
}

async function waitForTiles(page, count) {
  await page.waitForFunction((n) => document.querySelector('[data-testid="people-count"]')?.textContent?.includes(String(n)), count, { timeout: 30_000 });
}

async function meetingStates(variant) {
  await withObserver(variant, 'meeting-5', async (page) => {
    await enter(page);
    await waitForTiles(page, 5);
    await shoot(page, variant, 'meeting-5', { settle: 3500 });
    await at(page, 'hand').click();
    await at(page, 'mic').click();
    await shoot(page, variant, 'meeting-hand-muted', { settle: 1200 });
    await openFromBar(page, 'layout');
    await shoot(page, variant, 'meeting-speaker', { settle: 1500 });
    await openFromBar(page, 'chat');
    await at(page, 'chat-input').fill('各乡镇请在十点前把水位报上来。');
    await at(page, 'chat-send').click();
    await at(page, 'chat-message').first().waitFor();
    await shoot(page, variant, 'chat', { settle: 800 });
    await page.keyboard.press('Escape');
    await openFromBar(page, 'participants');
    await shoot(page, variant, 'participants', { settle: 800 });
    await at(page, 'panel-close').click();
    await openFromBar(page, 'settings');
    await shoot(page, variant, 'settings');
    await at(page, 'settings-shortcuts').click();
    await shoot(page, variant, 'shortcuts');
    await at(page, 'shortcuts-dialog-close').click();
    if (await at(page, 'more').isVisible()) {
      await at(page, 'more').click();
      await shoot(page, variant, 'more');
      await page.keyboard.press('Escape');
    }
    await at(page, 'leave').click();
    await at(page, 'left-reason').waitFor();
  });

  await withObserver(variant, 'screen-share', async (page) => {
    const sharer = guests[0];
    await enter(page, { listenOnly: true });
    await sharer.evaluate(() => {
      // A drawn page instead of the test machine's screen, which has none.
      const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
      const pen = canvas.getContext('2d');
      const draw = () => {
        pen.fillStyle = '#fff';
        pen.fillRect(0, 0, 1280, 720);
        pen.fillStyle = '#0b3d91';
        pen.font = '48px sans-serif';
        pen.fillText('全县水位一览', 80, 110);
        pen.font = '28px sans-serif';
        for (let row = 0; row < 8; row++) pen.fillText(`第 ${row + 1} 水文站   ${(12.3 + row * 0.7).toFixed(1)} 米`, 80, 190 + row * 60);
      };
      draw();
      setInterval(draw, 200);
      navigator.mediaDevices.getDisplayMedia = () => Promise.resolve(canvas.captureStream(5));
    });
    await sharer.bringToFront();
    await at(sharer, 'share').click();
    await page.bringToFront();
    await page.locator('[data-testid="tile"][data-kind="screen"]').waitFor({ timeout: 20_000 });
    await shoot(page, variant, 'screen-share', { settle: 2500 });
    if (variant === VARIANTS[0]) {
      await sharer.bringToFront();
      await shoot(sharer, variant, 'own-share');
    }
    await at(sharer, 'share-stop').click();
    await sharer.locator('[data-testid="own-share"]').waitFor({ state: 'detached' });
  });
}

async function reconnecting(variant) {
  await withObserver(variant, 'reconnecting', async (page) => {
    let isCut = false;
    const sockets = new Set();
    await page.routeWebSocket(/\/rtc/, (socket) => {
      if (isCut) return void socket.close();
      socket.connectToServer();
      sockets.add(socket);
    });
    await enter(page, { listenOnly: true });
    await shoot(page, variant, 'meeting-listen-only', { settle: 1500 });
    isCut = true;
    await page.route('**/api/**', (route) => route.abort());
    await page.route('**/rtc/**', (route) => route.abort());
    for (const socket of sockets) await socket.close();
    const banner = (phase) => page.locator(`[data-testid="reconnect-banner"][data-phase="${phase}"]`);
    await banner('quiet').waitFor({ timeout: 10_000 });
    await shoot(page, variant, 'reconnecting-0-quiet', { settle: false });
    await banner('words').waitFor({ timeout: 10_000 });
    await shoot(page, variant, 'reconnecting-1-words');
    await banner('retry').waitFor({ timeout: 30_000 });
    await shoot(page, variant, 'reconnecting-2-retry');
    isCut = false;
    await page.unroute('**/api/**');
    await page.unroute('**/rtc/**');
    await at(page, 'reconnect-retry').click();
    await page.locator('[data-testid="meeting"][data-phase="connected"]').waitFor({ timeout: 20_000 });
  });
}

try {
  for (const variant of VARIANTS) {
    await pagesBeforeMeeting(variant);
    await deviceCheck(variant);
    await withObserver(variant, 'meeting-1', async (page) => {
      await enter(page);
      await shoot(page, variant, 'meeting-1', { settle: 2000 });
    });
  }
  await haveGuests(1);
  for (const variant of VARIANTS) {
    await withObserver(variant, 'meeting-2', async (page) => {
      await enter(page);
      await waitForTiles(page, 2);
      await shoot(page, variant, 'meeting-2', { settle: 3000 });
    });
  }
  await haveGuests(4);
  for (const variant of VARIANTS) await meetingStates(variant);
  for (const variant of VARIANTS) await reconnecting(variant);
  await haveGuests(GUESTS.length);
  for (const variant of VARIANTS) {
    await withObserver(variant, 'meeting-12', async (page) => {
      await enter(page, { listenOnly: true });
      await waitForTiles(page, 12);
      await shoot(page, variant, 'meeting-12', { settle: 3000 });
      if (await at(page, 'page-next').isVisible()) {
        await at(page, 'page-next').click();
        await shoot(page, variant, 'meeting-12-page-2', { settle: 1500 });
      }
    });
  }
} finally {
  await browser.close();
}
console.log(`${shots} screens photographed in ${folder}, ${failures} failures`);
process.exit(failures > 0 ? 1 : 0);
