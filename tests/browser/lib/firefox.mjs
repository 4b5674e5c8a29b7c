// Debian's Firefox ESR, driven over WebDriver BiDi.

import puppeteer from 'puppeteer-core';
import { FIREFOX } from './browsers.mjs';

/** Firefox with cameras allowed. It takes no camera file: pages make picture and tone themselves. */
export function startFirefox() {
  return puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    acceptInsecureCerts: true,
    extraPrefsFirefox: {
      'media.navigator.permission.disabled': true,
      'media.navigator.streams.fake': true,
      'media.autoplay.default': 0,
      'media.autoplay.blocking_policy': 0,
      // Loopback candidates are otherwise left out, and this machine may have no other.
      'media.peerconnection.ice.loopback': true,
      'media.peerconnection.ice.obfuscate_host_addresses': false,
    },
  });
}
