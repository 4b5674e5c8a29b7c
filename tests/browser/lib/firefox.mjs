// Debian's Firefox ESR, driven over WebDriver BiDi.

import puppeteer from 'puppeteer-core';
import { FIREFOX } from './browsers.mjs';

/** Firefox with cameras allowed. It takes no camera file: pages draw the picture; its fake microphone hums at `hertz`. */
export function startFirefox(hertz) {
  return puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    acceptInsecureCerts: true,
    extraPrefsFirefox: {
      'media.navigator.permission.disabled': true,
      'media.navigator.streams.fake': true,
      'media.navigator.audio.fake_frequency': hertz,
      'media.autoplay.default': 0,
      'media.autoplay.blocking_policy': 0,
      'media.autoplay.block-webaudio': false,
      // Loopback candidates are otherwise left out, and this machine may have no other.
      'media.peerconnection.ice.loopback': true,
      'media.peerconnection.ice.obfuscate_host_addresses': false,
    },
  });
}
