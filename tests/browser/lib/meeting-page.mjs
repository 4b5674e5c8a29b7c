// The product's own pages, driven as a person would: by what is on the screen.

import { receivingScript, startChromium } from './browsers.mjs';
import { until } from './waiting.mjs';

const byId = (id) => `[data-testid="${id}"]`;

/** One browser in one meeting, by the product's pages. */
export class Attendee {
  /** Opens the link, gives a name, passes the device check, and is in the meeting. */
  static async join(link, number, options = {}) {
    const attendee = await Attendee.open(link, number, options);
    try {
      await attendee.#enter();
      return attendee;
    } catch (failure) {
      await attendee.leave();
      throw failure;
    }
  }

  /** A browser with one page open, and nothing done on it yet. */
  static async open(address, number, { name = `与会者${number}`, camera, parameters = {}, prepare, ...context } = {}) {
    const browser = await startChromium(number, camera);
    const attendee = new Attendee();
    Object.assign(attendee, { browser, number, name });
    try {
      const opened = await browser.newContext({
        ignoreHTTPSErrors: true, permissions: ['camera', 'microphone'], viewport: { width: 1280, height: 800 }, locale: 'zh-CN', ...context,
      });
      const url = new URL(address);
      for (const [key, value] of Object.entries(parameters)) url.searchParams.set(key, value);
      await attendee.#open(opened, url.href, prepare);
      return attendee;
    } catch (failure) {
      await browser.close();
      throw failure;
    }
  }

  /** The same browser's next tab, under another name. It ends with its browser. */
  async anotherTab(link, { name }) {
    const attendee = new Attendee();
    Object.assign(attendee, { browser: this.browser, number: this.number, name });
    await attendee.#open(this.page.context(), link);
    await attendee.#enter();
    return attendee;
  }

  async #open(context, address, prepare) {
    this.page = await context.newPage();
    await prepare?.(this.page);
    this.page.setDefaultTimeout(45_000);
    await this.page.addInitScript({ path: receivingScript });
    await this.page.goto(address);
  }

  async #enter() {
    // A browser that knows a name from before asks for none, but offers to change it.
    const known = this.page.locator(byId('check-change-name'));
    await this.page.locator(byId('join-name')).or(known).first().waitFor();
    if (await known.isVisible()) await known.click();
    await this.page.locator(byId('join-name')).fill(this.name);
    await this.page.locator(byId('join-submit')).click();
    await this.page.locator(byId('check-continue')).click();
    await this.inMeeting();
  }

  /** Waits until this browser is connected to the room. */
  async inMeeting(patience = 45_000) {
    await until(`${this.name} is in the meeting`, () => this.page.evaluate(() => window.__terrace?.room?.state === 'connected').catch(() => false), { patience });
  }

  identity() {
    return this.page.evaluate(() => window.__terrace.room.localParticipant.identity);
  }

  /** identity → what is seen and heard of it. */
  received(milliseconds = 1000) {
    return this.page.evaluate((ms) => window.receiving.received(window.__terrace.room, ms), milliseconds).catch(() => ({}));
  }

  inboundStats(identity, source) {
    return this.page.evaluate(([i, s]) => window.receiving.inboundStats(window.__terrace.room, i, s), [identity, source]);
  }

  async press(id) {
    await this.page.locator(byId(id)).click();
  }

  shown(id) {
    return this.page.locator(byId(id)).first().isVisible();
  }

  leave() {
    return this.browser.close();
  }
}
