/** Why a visitor is no longer in the meeting. Kept for the tab, so that a reload of the page still says it. */

export type DepartureReason =
  | 'self'
  | 'removed'
  | 'ended'
  | 'elsewhere'
  | 'unreachable'
  | 'refused'
  | 'notFound'
  | 'full'
  | 'unsupported';

const REASONS: readonly DepartureReason[] = [
  'self',
  'removed',
  'ended',
  'elsewhere',
  'unreachable',
  'refused',
  'notFound',
  'full',
  'unsupported',
];

export interface Departure {
  code: string;
  reason: DepartureReason;
  /** When, in milliseconds since 1970. */
  at: number;
  /** How long the visitor was in the meeting, in milliseconds; 0 when never. */
  attendedMs: number;
}

const STORAGE_KEY = 'terrace.departure';

export function rememberDeparture(departure: Departure): void {
  try {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify(departure));
  } catch {
    // Without storage the page says it once.
  }
}

export function takeLastDeparture(): Departure | null {
  try {
    const raw = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? 'null') as Partial<Record<keyof Departure, unknown>> | null;
    const reason = REASONS.find((known) => known === raw?.reason);
    if (raw === null || reason === undefined) return null;
    const { code, at, attendedMs } = raw;
    if (typeof code !== 'string' || typeof at !== 'number' || typeof attendedMs !== 'number') return null;
    return { code, reason, at, attendedMs };
  } catch {
    return null;
  }
}
