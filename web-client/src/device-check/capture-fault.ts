/** Why a microphone or camera did not open, in the categories that have different remedies. */
import type { BrowserKind, Client } from './browser-kind';
import type { PermissionWords } from '../words/permission-zh';

export type DeviceKind = 'microphone' | 'camera';

export type CaptureFault =
  | 'notAllowed'
  | 'dismissed'
  | 'systemDenied'
  | 'notFound'
  | 'notReadable'
  | 'overconstrained'
  | 'insecure'
  | 'inApp'
  | 'aborted';

export interface CaptureSituation {
  errorName: string;
  /** The browser's own sentence; some tell a refusal by the system only there. */
  errorMessage: string;
  /** What `navigator.permissions` says now, or null where it cannot be asked. */
  permission: 'granted' | 'denied' | 'prompt' | null;
  secureContext: boolean;
  hasMediaDevices: boolean;
  browser: BrowserKind;
}

export function faultOf(situation: CaptureSituation): CaptureFault {
  const { errorName, errorMessage, permission, browser } = situation;
  if (!situation.hasMediaDevices) {
    if (!situation.secureContext) return 'insecure';
    return browser === 'inApp' ? 'inApp' : 'aborted';
  }
  switch (errorName) {
    case 'NotAllowedError':
    case 'PermissionDeniedError':
    case 'SecurityError':
      // The page has the permission and still was refused: it was the system.
      if (/system/i.test(errorMessage) || permission === 'granted') return 'systemDenied';
      if (/dismissed/i.test(errorMessage) || permission === 'prompt') return 'dismissed';
      return browser === 'inApp' ? 'inApp' : 'notAllowed';
    case 'NotFoundError':
    case 'DevicesNotFoundError':
      return 'notFound';
    case 'NotReadableError':
    case 'TrackStartError':
      return 'notReadable';
    case 'OverconstrainedError':
    case 'ConstraintNotSatisfiedError':
      return 'overconstrained';
    case 'TypeError':
      return situation.secureContext ? 'aborted' : 'insecure';
    default:
      return 'aborted';
  }
}

export interface CaptureHelp {
  title: string;
  /** What to press, in order; empty where the title says all. */
  steps: readonly string[];
  /** Trying again on this page can succeed. */
  canRetry: boolean;
  /** The way out is another browser, so the link is worth copying. */
  offerLink: boolean;
}

export function helpFor(fault: CaptureFault, device: DeviceKind, client: Client, words: PermissionWords): CaptureHelp {
  const name = words[device];
  const help = (title: string, steps: readonly string[] = [], canRetry = true, offerLink = false): CaptureHelp => ({
    title,
    steps,
    canRetry,
    offerLink,
  });
  switch (fault) {
    case 'notAllowed':
      return help(words.notAllowed(name), words.steps[client.browser](name));
    case 'dismissed':
      return help(words.dismissed);
    case 'systemDenied':
      return help(words.systemDenied(name), words.steps[client.system](name));
    case 'notFound':
      return help(words.notFound(name));
    case 'notReadable':
      return help(words.notReadable(name));
    case 'overconstrained':
      return help(words.overconstrained);
    case 'insecure':
      return help(words.insecure, [], false);
    case 'inApp':
      return help(words.inApp(name), words.steps.inApp(), false, true);
    case 'aborted':
      return help(words.aborted(name));
  }
}
