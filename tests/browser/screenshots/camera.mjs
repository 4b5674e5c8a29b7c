// Takes pictures of pages, and finds on each what a machine can find: axe's rules, pages wider than the screen, targets too small.

import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** WCAG 2.2, 2.5.8: the least height of what is pressed, in CSS pixels. */
const LEAST_TARGET = 24;

export class Camera {
  shots = 0;
  findings = [];
  #folder;

  constructor(folder) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  found(what) {
    this.findings.push(what);
    console.error(`FOUND ${what}`);
  }

  /** One picture as the screen shows it, after transitions have ended, with everything that can be found on it. */
  async shoot(page, name) {
    await page.waitForTimeout(250);
    await page.screenshot({ path: join(this.#folder, `${name}.png`) });
    this.shots += 1;
    // As an expression of the debugger's, which the page's content security policy lets pass.
    if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe);
    for (const what of await page.evaluate(look, { rules: RULES, least: LEAST_TARGET })) this.found(`${name}: ${what}`);
  }

  /** The whole page where it is longer than the screen; looked at by people only. */
  async shootWhole(page, name) {
    const isLonger = await page.evaluate(() => document.documentElement.scrollHeight > innerHeight);
    if (!isLonger) return;
    await page.screenshot({ path: join(this.#folder, `${name}-whole.png`), fullPage: true });
    this.shots += 1;
  }
}

/** Runs in the page. */
async function look({ rules, least }) {
  const { violations } = await window.axe.run(document, { runOnly: rules, resultTypes: ['violations'] });
  const found = violations.map(({ id, impact, help, nodes }) =>
    `axe ${id} (${impact}) ${help}: ${nodes.slice(0, 3).map((node) => node.target.join(' ')).join(' | ')}`);
  const wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wider > 0) found.push(`${wider} px wider than the screen`);
  const small = [...document.querySelectorAll('button, select, input[type=text], textarea')]
    .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < least);
  if (small.length > 0) found.push(`targets below ${least} px: ${small.map((element) => element.outerHTML.slice(0, 80)).join(' | ')}`);
  const clipped = [...document.querySelectorAll('button, h1, h2, label, .lead')]
    .filter((element) => element.checkVisibility() && element.clientWidth > 0 && getComputedStyle(element).overflowX !== 'visible'
      && (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 2));
  if (clipped.length > 0) found.push(`clipped words: ${clipped.map((element) => element.textContent.slice(0, 40)).join(' | ')}`);
  return found;
}
