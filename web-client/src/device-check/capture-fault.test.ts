import { describe, expect, it } from 'vitest';
import { en } from '../words/en';
import { zh } from '../words/zh';
import { clientOf } from './browser-kind';
import { faultOf, helpFor, type CaptureFault, type CaptureSituation } from './capture-fault';

const CHROME =
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36';
const IPHONE =
  'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1';
const MAC_SAFARI =
  'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15';

function situation(change: Partial<CaptureSituation>): CaptureSituation {
  return {
    errorName: 'NotAllowedError',
    errorMessage: 'Permission denied',
    permission: 'denied',
    secureContext: true,
    hasMediaDevices: true,
    browser: 'chromeDesktop',
    ...change,
  };
}

describe('the reason a device did not open', () => {
  const cases: [Partial<CaptureSituation>, CaptureFault][] = [
    [{}, 'notAllowed'],
    [{ permission: null }, 'notAllowed'],
    [{ errorMessage: 'Permission dismissed', permission: 'prompt' }, 'dismissed'],
    [{ errorMessage: 'Permission denied by system' }, 'systemDenied'],
    [{ permission: 'granted' }, 'systemDenied'],
    [{ browser: 'inApp' }, 'inApp'],
    [{ errorName: 'NotFoundError' }, 'notFound'],
    [{ errorName: 'NotReadableError' }, 'notReadable'],
    [{ errorName: 'OverconstrainedError' }, 'overconstrained'],
    [{ errorName: 'AbortError' }, 'aborted'],
    [{ hasMediaDevices: false, secureContext: false }, 'insecure'],
    [{ hasMediaDevices: false, browser: 'inApp' }, 'inApp'],
    [{ hasMediaDevices: false }, 'aborted'],
  ];
  it.each(cases)('%j is %s', (change, fault) => expect(faultOf(situation(change))).toBe(fault));
});

describe('the browser', () => {
  it.each([
    [CHROME, 0, 'chromeDesktop', 'systemWindows'],
    [`${CHROME} Edg/140.0.0.0`, 0, 'chromeDesktop', 'systemWindows'],
    [`${CHROME} QQBrowser/12.0`, 0, 'chineseBrowser', 'systemWindows'],
    [IPHONE, 5, 'safariIos', 'systemIos'],
    [MAC_SAFARI, 0, 'safariMac', 'systemMac'],
    [MAC_SAFARI, 5, 'safariIos', 'systemIos'],
    [`${IPHONE} MicroMessenger/8.0.50`, 5, 'inApp', 'systemIos'],
    ['Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', 0, 'firefoxDesktop', 'systemOther'],
    ['Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36', 5, 'chromeAndroid', 'systemAndroid'],
    ['Mozilla/5.0 (Phone; OpenHarmony 5.0) AppleWebKit/537.36 Chrome/114 ArkWeb/4.1 Mobile', 5, 'harmony', 'systemAndroid'],
  ] as const)('%s is told', (userAgent, touch, browser, system) => {
    expect(clientOf(userAgent, touch)).toEqual({ browser, system });
  });
});

describe('the help', () => {
  it('for a refusal has three steps that name the device, in every browser', () => {
    for (const words of [zh.permission, en.permission]) {
      for (const browser of ['chromeDesktop', 'chineseBrowser', 'firefoxDesktop', 'safariMac', 'safariIos', 'chromeAndroid', 'harmony', 'unknown'] as const) {
        const help = helpFor('notAllowed', 'camera', { browser, system: 'systemWindows' }, words);
        expect(help.steps).toHaveLength(3);
        expect(help.steps.join()).toContain(words.camera);
        expect(help.title).toContain(words.camera);
      }
    }
  });

  it('never shows the names of errors', () => {
    const faults: CaptureFault[] = ['notAllowed', 'dismissed', 'systemDenied', 'notFound', 'notReadable', 'overconstrained', 'insecure', 'inApp', 'aborted'];
    const titles = faults.map((fault) => helpFor(fault, 'microphone', clientOf(CHROME, 0), zh.permission).title);
    expect(new Set(titles).size).toBe(faults.length);
    expect(titles.join()).not.toMatch(/Error|Allowed|Found|Readable/);
  });

  it('offers the link where only another browser helps', () => {
    expect(helpFor('inApp', 'camera', clientOf(IPHONE, 5), zh.permission)).toMatchObject({ canRetry: false, offerLink: true });
  });
});
