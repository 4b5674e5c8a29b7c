/**
 * What this tab remembers of a meeting, so that a reload or a fall of the line brings the visitor
 * back to the same seat in the same state. Kept in sessionStorage: another tab is another person.
 */

export interface SeatMemory {
  /** The server's opaque token for "the same participant again". */
  seat: string;
  name: string;
  meetingName: string;
  /** The tab is in the meeting; false once left on purpose or sent out. */
  active: boolean;
  microphoneOn: boolean;
  cameraOn: boolean;
  /** When the hand went up, in milliseconds since 1970; null when it is down. */
  handAt: number | null;
  /** When the visitor came in first, for the time shown on leaving. */
  joinedAt: number;
  /** Last moment the tab was known to be in the meeting. */
  lastSeenAt: number;
}

/** Somebody away longer than this comes back muted: the room around them may have changed. */
export const MUTED_RETURN_AFTER_MS = 30_000;

const keyFor = (code: string): string => `terrace.seat.${code}`;
const draftKeyFor = (code: string): string => `terrace.draft.${code}`;

export function readSeat(code: string): SeatMemory | null {
  try {
    return parseSeat(JSON.parse(sessionStorage.getItem(keyFor(code)) ?? 'null'));
  } catch {
    return null;
  }
}

export function parseSeat(raw: unknown): SeatMemory | null {
  if (typeof raw !== 'object' || raw === null) return null;
  const { seat, name, meetingName, active, microphoneOn, cameraOn, handAt, joinedAt, lastSeenAt } = raw as Record<
    string,
    unknown
  >;
  if (typeof seat !== 'string' || typeof name !== 'string' || typeof meetingName !== 'string') return null;
  if (typeof active !== 'boolean' || typeof microphoneOn !== 'boolean' || typeof cameraOn !== 'boolean') return null;
  if (typeof joinedAt !== 'number' || typeof lastSeenAt !== 'number') return null;
  return {
    seat,
    name,
    meetingName,
    active,
    microphoneOn,
    cameraOn,
    handAt: typeof handAt === 'number' ? handAt : null,
    joinedAt,
    lastSeenAt,
  };
}

export function writeSeat(code: string, memory: SeatMemory): void {
  try {
    sessionStorage.setItem(keyFor(code), JSON.stringify(memory));
  } catch {
    // Without storage a reload goes through the device check again.
  }
}

/**
 * The visitor is out. The seat is kept, so that joining again is the same participant, unless it
 * is worthless from now on: after a removal or the end of the meeting.
 */
export function forgetMeeting(code: string, seatToo: boolean): void {
  const memory = readSeat(code);
  try {
    if (memory === null || seatToo) sessionStorage.removeItem(keyFor(code));
    else writeSeat(code, { ...memory, active: false, handAt: null });
    sessionStorage.removeItem(draftKeyFor(code));
  } catch {
    // Nothing was stored then.
  }
}

/** Whether the microphone may come back open after an absence. */
export function microphoneAfterAbsence(wasOn: boolean, absentMs: number): boolean {
  return wasOn && absentMs <= MUTED_RETURN_AFTER_MS;
}

export function readDraft(code: string): string {
  try {
    return sessionStorage.getItem(draftKeyFor(code)) ?? '';
  } catch {
    return '';
  }
}

export function writeDraft(code: string, draft: string): void {
  try {
    if (draft === '') sessionStorage.removeItem(draftKeyFor(code));
    else sessionStorage.setItem(draftKeyFor(code), draft);
  } catch {
    // The draft then lives as long as the page.
  }
}
