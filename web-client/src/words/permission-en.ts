import type { PermissionWords } from './permission-zh';

export const permissionEn: PermissionWords = {
  microphone: 'microphone',
  camera: 'camera',
  notAllowed: (device) => `The browser has not allowed the ${device}. Follow these steps to allow it`,
  systemDenied: (device) => `The system has not allowed the browser to use the ${device}. Allow it in the system settings`,
  notFound: (device) => `No ${device} was found. Check that it is plugged in, or take part without it`,
  notReadable: (device) => `The ${device} is in use by another program. Close that program, then press “Retry”`,
  overconstrained: 'The device chosen before is gone; the default one is used instead. Press “Retry”',
  insecure: 'Microphone and camera cannot be used at this address. Open the original meeting link (it starts with https)',
  inApp: (device) => `The ${device} cannot be opened here. Open this link in a browser`,
  aborted: (device) => `The ${device} did not open. Press “Retry”; if that fails, restart the browser`,
  dismissed: 'Nothing was chosen yet. Press “Retry”, then “Allow” in the window that appears',
  stepsTitle: 'How to allow it',
  copyLink: 'Copy link',
  linkCopied: 'Copied',
  steps: {
    chromeDesktop: (device) => [
      'Press the settings icon at the left of the address (two lines or a lock)',
      `Set “${device}” to “Allow”`,
      'Reload the page, or press “Retry” below',
    ],
    chineseBrowser: (device) => [
      'Look at the right of the address: if it says “compatibility mode”, switch to “speed mode”',
      `Press the icon at the left of the address and set “${device}” to “Allow”`,
      'Reload the page',
    ],
    firefoxDesktop: (device) => [
      `Press the crossed-out ${device} icon in the address bar`,
      'Press the cross beside “Blocked temporarily”',
      'Press “Retry” below, then “Allow” in the window that appears',
    ],
    safariMac: (device) => [
      'In the menu at the top of the screen choose “Safari” → “Settings for this website”',
      `Set “${device}” to “Allow”`,
      'Reload the page',
    ],
    safariIos: (device) => [
      'Press “AA” or the page menu in the address bar → “Website settings”',
      `Set “${device}” to “Allow”`,
      `If it is not there: open “Settings” → “Safari” → “${device}” → “Allow”`,
    ],
    chromeAndroid: (device) => [
      'Press the icon at the left of the address → “Permissions”',
      `Set “${device}” to “Allow”`,
      `If it is not there: open “Settings” → “Apps” → the browser → “Permissions” → “${device}”`,
    ],
    harmony: (device) => [
      'Open “Settings” → “Privacy & security” → “Permission manager”',
      `Choose “${device}”, find the browser and set it to “Allow”`,
      'Come back here and press “Retry”',
    ],
    inApp: () => ['Press “…” at the top right', 'Choose “Open in browser”', 'Enter the meeting again in the browser'],
    unknown: (device) => ['Open the browser’s site settings or permissions', `Set “${device}” to “Allow”`, 'Reload the page'],
    systemWindows: (device) => [
      `Open “Settings” → “Privacy & security” → “${device}”`,
      `Turn on access to the ${device} for desktop apps`,
      'Come back here and press “Retry”',
    ],
    systemMac: (device) => [
      `Open “System Settings” → “Privacy & Security” → “${device}”`,
      'Turn on the switch beside the browser',
      'Open the browser again and enter the meeting',
    ],
    systemIos: (device) => [
      `Open “Settings” → “Privacy & Security” → “${device}”`,
      'Turn on the switch beside the browser',
      'Come back here and press “Retry”',
    ],
    systemAndroid: (device) => [
      'Open “Settings” → “Apps” → the browser → “Permissions”',
      `Set “${device}” to “Allow while using”`,
      'Come back here and press “Retry”',
    ],
    systemOther: (device) => [
      `Open the privacy or permission page of the system settings and find “${device}”`,
      'Allow the browser to use it',
      'Come back here and press “Retry”',
    ],
  },
};
