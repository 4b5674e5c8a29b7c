/**
 * Which browser and system the visitor has, only to choose the right sentences of help.
 * Whether something works is always tried, never guessed from here.
 */

export type BrowserKind =
  | 'chromeDesktop'
  | 'chineseBrowser'
  | 'firefoxDesktop'
  | 'safariMac'
  | 'safariIos'
  | 'chromeAndroid'
  | 'harmony'
  | 'inApp'
  | 'unknown';

export type SystemKind = 'systemWindows' | 'systemMac' | 'systemIos' | 'systemAndroid' | 'systemOther';

export interface Client {
  browser: BrowserKind;
  system: SystemKind;
}

/** @param touchPoints tells an iPad, which calls itself a Macintosh, from a Mac. */
export function clientOf(userAgent: string, touchPoints: number): Client {
  const system = systemOf(userAgent, touchPoints);
  return { browser: browserOf(userAgent, system), system };
}

function systemOf(userAgent: string, touchPoints: number): SystemKind {
  if (/iPhone|iPad|iPod/.test(userAgent) || (/Macintosh/.test(userAgent) && touchPoints > 1)) return 'systemIos';
  if (/Android|HarmonyOS|OpenHarmony/.test(userAgent)) return 'systemAndroid';
  if (/Windows/.test(userAgent)) return 'systemWindows';
  if (/Macintosh/.test(userAgent)) return 'systemMac';
  return 'systemOther';
}

function browserOf(userAgent: string, system: SystemKind): BrowserKind {
  // WeChat, QQ, DingTalk, Alipay, Weibo, Feishu, WeCom and the frames inside other apps.
  if (/MicroMessenger|wxwork|DingTalk|AlipayClient|Weibo|Lark|Feishu|\bQQ\/|; wv\)/i.test(userAgent)) return 'inApp';
  if (/HarmonyOS|OpenHarmony|ArkWeb|HuaweiBrowser/.test(userAgent)) return 'harmony';
  if (system === 'systemIos') return 'safariIos';
  if (system === 'systemAndroid') return 'chromeAndroid';
  if (/QQBrowser|QIHU|360SE|360EE|MetaSr|SLBrowser|LBBROWSER|2345Explorer|Maxthon/i.test(userAgent)) return 'chineseBrowser';
  if (/Firefox\//.test(userAgent)) return 'firefoxDesktop';
  if (/Edg\/|Chrome\/|Chromium\//.test(userAgent)) return 'chromeDesktop';
  if (/Safari\//.test(userAgent) && system === 'systemMac') return 'safariMac';
  return 'unknown';
}

export function currentClient(): Client {
  return clientOf(navigator.userAgent, navigator.maxTouchPoints);
}
