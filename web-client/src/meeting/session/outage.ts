/**
 * What of the line is down. Signalling (a WebSocket) and media (UDP) fall and come back each by itself, and a
 * person can do different things about it: whose media is down is still in the meeting and can write; whose
 * signalling is down goes on seeing and hearing.
 */

export type OutageKind = 'media' | 'signalling' | 'everything';

export interface Outage {
  kind: OutageKind;
  /** In milliseconds since 1970. */
  since: number;
}

/** Since when which half is down, in milliseconds since 1970; null while it holds. */
export interface Halves {
  signallingDownSince: number | null;
  mediaDownSince: number | null;
}

export function outageOf({ signallingDownSince, mediaDownSince }: Halves): Outage | null {
  if (signallingDownSince === null) return mediaDownSince === null ? null : { kind: 'media', since: mediaDownSince };
  if (mediaDownSince === null) return { kind: 'signalling', since: signallingDownSince };
  return { kind: 'everything', since: Math.min(signallingDownSince, mediaDownSince) };
}

/**
 * Nothing at all for so long is an outage. Browsers check a path that works every 2.5 s, also where nobody speaks, and
 * it is looked at every second; they themselves call it disconnected after seven.
 */
export const QUIET_IS_DOWN_MS = 4_000;

/**
 * Whether media passes, from the browser's own checks of its paths (RFC 7675), one for each connection, and for how
 * long nothing came; null while that is not known.
 */
export function isMediaUp(states: readonly RTCIceConnectionState[], quietMs: number): boolean | null {
  if (quietMs >= QUIET_IS_DOWN_MS) return false;
  if (states.some((state) => state === 'disconnected' || state === 'failed')) return false;
  // Who only listens over two connections never uses the other one, which stays new.
  const used = states.filter((state) => state !== 'new' && state !== 'closed');
  if (used.length === 0 || used.some((state) => state === 'checking')) return null;
  return true;
}
