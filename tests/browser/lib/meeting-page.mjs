// The product's own pages, driven as a person would: by what is on the screen.

import { receivingScript, startChromium } from './browsers.mjs';
import { until } from './waiting.mjs';

const byId = (id) => `[data-testid="${id}"]`;

/** One browser in one meeting, by the product's pages. */
export class Attendee {
  /** Opens the link, gives a name, passes the device check, and is in the meeting. */
  static async join(link, number, { name = `与会者${number}`, camera, parameters = {}, ...context } = {}) {
    const browser = await startChromium(number, camera);
    const attendee = new Attendee();
    Object.assign(attendee, { browser, number, name });
    try {
      const opened = await browser.newContext({
        ignoreHTTPSErrors: true, permissions: ['camera', 'microphone'], viewport: { width: 1280, height: 800 }, locale: 'zh-CN', ...context,
      });
      attendee.page = await opened.newPage();
      attendee.page.setDefaultTimeout(45_000);
      await attendee.page.addInitScript({ path: receivingScript });
      const address = new URL(link);
      for (const [key, value] of Object.entries(parameters)) address.searchParams.set(key, value);
      await attendee.page.goto(address.href);
      await attendee.#enter();
      return attendee;
    } catch (failure) {
      await browser.close();
      throw failure;
    }
  }

  async #enter() {
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
