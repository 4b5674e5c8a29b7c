/**
 * When to try again after the line fell. First the media library resumes or restarts its own session
 * (same token, tracks kept); when that gives up, this client joins anew with the same seat, for as
 * long as the visitor stays.
 */

/** How long the library may try by itself while nothing passes: as long as the server keeps the participant
 *  (20 s), and an attempt longer. To give up sooner is to be seen leaving and coming. */
export const RESUME_WINDOW_MS = 22_000;
/** The same while sound and pictures go on: then the server keeps the participant for 60 s. */
export const RESUME_WINDOW_WITH_MEDIA_MS = 62_000;
/** How long media may be away while the server is talked to, before the library begins its session anew, from when
 *  the browser gives its paths up (some 17 s after the last packet) and looks for new ones. It looks for 15 s. */
export const MEDIA_PATIENCE_MS = 15_000;
/** First wait between two attempts; doubled each time. */
const FIRST_DELAY_MS = 300;
/** Ceiling of the wait: somebody who watches the page sees an attempt at least this often. */
const MAX_DELAY_MS = 5_000;
/** Ceiling while the library tries, so that "at once when the network is back" stays nearly true. */
const MAX_RESUME_DELAY_MS = 2_400;
/** Share of the delay that is random, so that a hundred villages do not return in the same instant. */
const JITTER = 0.3;
/** After this long outside a page stops trying by itself; the seat stays. */
export const GIVE_UP_AFTER_MS = 30 * 60_000;
/** How long the very first join may take before the page says that the server is out of reach. */
export const FIRST_JOIN_PATIENCE_MS = 20_000;

/** Wait before attempt `attempt` (0 = first). `random` is in [0, 1). */
export function rejoinDelay(attempt: number, random: number, ceiling: number = MAX_DELAY_MS): number {
  const base = Math.min(FIRST_DELAY_MS * 2 ** Math.min(attempt, 16), ceiling);
  return Math.round(Math.min(base * (1 - JITTER + 2 * JITTER * random), ceiling));
}

/** The wait with what the server asked for: never sooner than Retry-After. */
export function waitBeforeRejoin(attempt: number, random: number, retryAfterMs: number | null): number {
  return Math.max(rejoinDelay(attempt, random), retryAfterMs ?? 0);
}

/** The library's own policy: quick attempts inside the window, then null, which ends its session. */
export function resumeDelay(retryCount: number, elapsedMs: number, random: number, isMediaUp: boolean): number | null {
  if (elapsedMs >= (isMediaUp ? RESUME_WINDOW_WITH_MEDIA_MS : RESUME_WINDOW_MS)) return null;
  // The first attempt is immediate but for the jitter: most falls are a moment's switch of networks.
  if (retryCount === 0) return Math.round(FIRST_DELAY_MS * random);
  return rejoinDelay(retryCount - 1, random, MAX_RESUME_DELAY_MS);
}

export type OutagePhase = 'quiet' | 'words' | 'retry';

/** Nothing but a grey dot for three seconds, then words, then after fifteen a button. */
export const WORDS_AFTER_MS = 3_000;
export const RETRY_AFTER_MS = 15_000;

export function outagePhase(outageMs: number): OutagePhase {
  if (outageMs < WORDS_AFTER_MS) return 'quiet';
  return outageMs < RETRY_AFTER_MS ? 'words' : 'retry';
}
