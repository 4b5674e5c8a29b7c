// What people do on the meeting page, seen from the other side as well.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Belongings, serveHarness, startChromium } from '../lib/browsers.mjs';
import { Guests } from '../lib/guests.mjs';
import { toneOf } from '../lib/media.mjs';
import { Attendee } from '../lib/meeting-page.mjs';
import { Server, token } from '../lib/server.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const suite = new Belongings();
let server;

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
});
after(() => suite.closeAll());

async function meet(t, numbers, options = {}) {
  const { link } = server.createMeeting();
  const people = [];
  for (const number of numbers) {
    const attendee = await Attendee.join(link, number, options);
    t.after(() => attendee.leave());
    people.push(attendee);
  }
  return people;
}

const tileOf = (viewer, identity) => viewer.page.locator(`[data-testid="tile"][data-kind="person"][data-identity="${identity}"]`);
const attribute = (viewer, id, name) => viewer.page.locator(`[data-testid="${id}"]`).first().getAttribute(name);
const isOn = async (viewer, id) => (await attribute(viewer, id, 'aria-pressed')) === 'true';

test('a raised hand is seen by the others on the tile and on the list, and goes down again', { timeout: 120_000 }, async (t) => {
  const [asks, chairs] = await meet(t, [1, 2]);
  const identity = await asks.identity();
  await asks.press('hand');
  await until('the hand is on the tile', () => tileOf(chairs, identity).locator('.tile-hand').isVisible());
  await chairs.press('participants');
  const row = chairs.page.locator(`[data-testid="roster-row"][data-identity="${identity}"]`);
  await until('and on the list', async () => (await row.getAttribute('data-hand')) === 'true');
  assert.match(await row.innerText(), /第 1 位举手/);
  await asks.press('hand');
  await until('and down again', async () => (await row.getAttribute('data-hand')) === 'false');
});

test('in a crowd the list names whom it knows and says how many more are there', { timeout: 120_000 }, async (t) => {
  const [chairs] = await meet(t, [1]);
  const room = await chairs.page.evaluate(() => window.__terrace.room.name);
  // Viewers by their WebSockets alone: what is asked for here is the number.
  const viewers = Array.from({ length: 120 }, (_, number) => token({ room, identity: `viewer-${number}`, grants: { canPublish: false } }));
  await chairs.page.evaluate(
    ([url, tokens]) => {
      window.viewers = tokens.map((one) => new WebSocket(`${url}/rtc?access_token=${one}`));
    },
    [server.socketUrl, viewers],
  );
  const more = chairs.page.locator('[data-testid="unlisted"]');
  await chairs.press('participants');
  await until('the rest is counted', async () => (await more.isVisible()) && (await more.innerText()) === '还有 21 人在场');
  assert.equal(await chairs.page.locator('[data-testid="roster-row"]').count(), 100);
  assert.match(await chairs.page.locator('[data-testid="people-count"]').innerText(), /^121 /);
  await chairs.page.evaluate(() => window.viewers.forEach((socket) => socket.close()));
  const rows = () => chairs.page.locator('[data-testid="roster-row"]').count();
  await until('they are gone', async () => !(await more.isVisible()) && (await rows()) === 1, { patience: 60_000 });
});

test('chat goes both ways, and what came unread is counted', { timeout: 120_000 }, async (t) => {
  const [one, two] = await meet(t, [3, 4]);
  const write = async (writer, text) => {
    if (!(await writer.shown('chat-input'))) await writer.press('chat');
    await writer.page.locator('[data-testid="chat-input"]').fill(text);
    await writer.page.keyboard.press('Enter');
  };
  const read = (reader) => reader.page.locator('[data-testid="chat-message"] .chat-text').allInnerTexts();
  await write(one, '水位报上来了吗？');
  await until('the other has one unread message', async () => (await two.shown('chat-unread')) && /1/.test(await two.page.locator('[data-testid="chat-unread"]').innerText()));
  await write(two, '<b>报了</b>：12.3 米');
  const both = ['水位报上来了吗？', '<b>报了</b>：12.3 米'];
  for (const reader of [one, two]) {
    await untilValue(`${reader.name} reads both, as they were written`, () => read(reader), (texts) => JSON.stringify(texts) === JSON.stringify(both));
  }
  await until('nothing is unread any more', async () => !(await two.shown('chat-unread')));
});

test('layouts are switched, and more people than fit are on pages', { timeout: 120_000 }, async (t) => {
  const harness = await serveHarness();
  t.after(() => harness.close());
  const browser = await startChromium(1);
  t.after(() => browser.close());
  const { code, link } = server.createMeeting();
  const guests = await Guests.open(browser, harness.url, server, code);
  await guests.be(11);
  const viewer = await Attendee.join(link, 5, { viewport: { width: 400, height: 620 } });
  t.after(() => viewer.leave());
  const stage = (name) => attribute(viewer, 'stage', `data-${name}`);
  const shown = () => viewer.page.locator('[data-testid="tile"]').evaluateAll((tiles) => tiles.map((tile) => tile.dataset.identity));
  const pages = await untilValue('there are several pages', () => stage('pages').then(Number), (n) => n > 1);
  const seen = new Set(await shown());
  for (let page = 2; page <= pages; page += 1) {
    await viewer.press('page-next');
    await until(`page ${page} is shown`, async () => Number(await stage('page')) === page);
    for (const identity of await shown()) seen.add(identity);
  }
  assert.equal(seen.size, 12, 'somebody is on no page');
  await viewer.press('page-previous');
  await until('and back', async () => Number(await stage('page')) === pages - 1);
  await viewer.page.setViewportSize({ width: 1280, height: 800 });
  await until('on a wide screen all fit', async () => (await stage('pages')) === '1' && (await shown()).length === 12);
  await viewer.press('layout');
  await until('one picture is large', async () => (await stage('mode')) === 'speaker');
  const areas = await viewer.page.locator('[data-testid="tile"]').evaluateAll((tiles) => tiles.map((tile) => tile.clientWidth * tile.clientHeight));
  assert.ok(areas[0] > 4 * Math.max(...areas.slice(1)), `areas ${areas}`);
  await viewer.press('layout');
  await until('and all alike again', async () => (await stage('mode')) === 'grid');
});

test('another microphone is taken in the settings, and the others go on seeing and hearing', { timeout: 150_000 }, async (t) => {
  const [changes, listens] = await meet(t, [7, 8]);
  const identity = await changes.identity();
  const device = (source) => changes.page.evaluate((s) => window.__terrace.room.localParticipant.getTrackPublication(s).track.mediaStreamTrack.getSettings().deviceId, source);
  const seesAndHears = (received) => received[identity]?.number === 7 && Math.abs(received[identity].hertz - toneOf(7)) < 20;
  await untilValue('seen and heard before', () => listens.received(), seesAndHears);
  await changes.press('settings');
  const select = changes.page.locator('[data-testid="settings-microphone"]');
  const before = await device('microphone');
  const others = await select.locator('option').evaluateAll((options) => options.map((option) => option.value).filter((value) => value !== '' && value !== 'default'));
  const next = others.find((id) => id !== before);
  assert.ok(next, 'the browser has one microphone only');
  await select.selectOption(next);
  await until('the other microphone is in use', async () => (await device('microphone')) === next);
  await changes.press('settings-done');
  assert.ok(!(await changes.shown('settings-dialog')));
  await untilValue('seen and heard afterwards', () => listens.received(), seesAndHears);
});

test('large type enlarges everything, stays after a reload, and is undone', { timeout: 120_000 }, async (t) => {
  const [person] = await meet(t, [2]);
  const size = () => person.page.locator('[data-testid="mic"]').evaluate((button) => ({ height: button.clientHeight, letters: parseFloat(getComputedStyle(button).fontSize) }));
  const before = await size();
  const change = async () => {
    await person.press('settings');
    await person.page.locator('[data-testid="settings-large-type"]').click();
    await person.press('settings-done');
  };
  await change();
  const large = await untilValue('letters and buttons are bigger', size, (now) => now.letters > before.letters * 1.2 && now.height > before.height);
  assert.ok(large.height >= 60, `a button is ${large.height} px high`);
  await person.page.reload();
  await person.inMeeting();
  assert.deepEqual(await size(), large);
  await change();
  await untilValue('as before', size, (now) => now.letters === before.letters);
});

test('keys do what the page of shortcuts says', { timeout: 120_000 }, async (t) => {
  const [person] = await meet(t, [3]);
  const { keyboard } = person.page;
  const nowhere = () => person.page.evaluate(() => document.activeElement?.blur());
  await nowhere();
  await keyboard.press('Control+d');
  await until('Ctrl+D switches the microphone off', async () => !(await isOn(person, 'mic')));
  await keyboard.press('Control+e');
  await until('Ctrl+E switches the camera off', async () => !(await isOn(person, 'camera')));
  await keyboard.press('Control+e');
  await until('and on', () => isOn(person, 'camera'));
  await keyboard.down('Space');
  await until('one speaks while the space bar is held', () => isOn(person, 'mic'));
  await keyboard.up('Space');
  await until('and is muted again when it is let go', async () => !(await isOn(person, 'mic')));
  await keyboard.press('?');
  await until('? opens the list of shortcuts', () => person.shown('shortcuts-dialog'));
  await keyboard.press('Escape');
  await until('Esc closes it', async () => !(await person.shown('shortcuts-dialog')));
  await person.press('chat');
  await person.page.locator('[data-testid="chat-input"]').waitFor();
  await keyboard.type(' d? ');
  assert.equal(await person.page.locator('[data-testid="chat-input"]').inputValue(), ' d? ', 'single keys are taken from a field');
  assert.ok(!(await isOn(person, 'mic')) && !(await person.shown('shortcuts-dialog')));
  await keyboard.press('Escape');
  await until('Esc closes the panel', async () => !(await person.shown('chat-panel')));
  assert.equal(await person.page.evaluate(() => document.activeElement?.dataset.testid), 'chat', 'the focus is not where it came from');
  await nowhere();
  await keyboard.press('Escape');
  await keyboard.press('F6');
  assert.equal(await person.page.evaluate(() => document.activeElement?.dataset.region), 'stage');
  assert.ok(await person.shown('meeting'), 'Esc left the meeting');
});

test('the layer follows the tile', { timeout: 150_000 }, async (t) => {
  const camera = { width: 1280, height: 720, rate: 15 };
  const [sender, viewer] = await meet(t, [9, 4], { camera });
  const identity = await sender.identity();
  const width = () => viewer.inboundStats(identity).then((stats) => stats?.frameWidth ?? 0);
  await viewer.page.setViewportSize({ width: 1600, height: 1000 });
  await viewer.press('layout');
  await untilValue('a large picture for a large tile', width, (w) => w >= 960, { patience: 60_000 });
  await viewer.page.setViewportSize({ width: 360, height: 560 });
  await untilValue('a small one for a small tile', width, (w) => w > 0 && w <= 640, { patience: 45_000 });
  await viewer.page.setViewportSize({ width: 1600, height: 1000 });
  await untilValue('and a large one again', width, (w) => w >= 960, { patience: 60_000 });
  await untilValue('the picture is right', () => viewer.received(), (r) => r[identity]?.number === 9);
});
