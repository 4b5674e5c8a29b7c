/**
 * The two calls this client makes to the server over HTTP. Every failure becomes an `ApiError`
 * with a stable code (RFC 9457 problem details), so that the words shown are ours and in the
 * visitor's language.
 */
import { getPreferences } from '../preferences/preferences';

export interface Meeting {
  code: string;
  name: string;
  endsAt: string | null;
}

export interface Admission {
  /** Where the media server is; empty means the server this page came from. */
  url: string;
  token: string;
  identity: string;
  /** Opaque; sent back, it gives the same identity again. */
  seat: string;
  meeting: Meeting;
}

export type ApiErrorCode =
  | 'meeting_not_found'
  | 'meeting_ended'
  | 'too_many_attempts'
  | 'invalid_name'
  | 'draining'
  | 'server_full'
  | 'overloaded'
  | 'unreachable'
  | 'other';

const KNOWN_CODES: readonly ApiErrorCode[] = [
  'meeting_not_found',
  'meeting_ended',
  'too_many_attempts',
  'invalid_name',
  'draining',
  'server_full',
  'overloaded',
];

/** How long one call may take before it counts as the server being out of reach. */
const CALL_TIMEOUT_MS = 12_000;

/** A Retry-After longer than this is a mistake or malice; nobody waits an hour on a page. */
const MAX_RETRY_AFTER_MS = 600_000;

export class ApiError extends Error {
  constructor(
    readonly code: ApiErrorCode,
    /** The server's own sentence, shown only for a code this client does not know. */
    readonly detail: string,
    readonly retryAfterMs: number | null,
  ) {
    super(`${code}: ${detail}`);
    this.name = 'ApiError';
  }
}

export function getMeeting(code: string, signal?: AbortSignal): Promise<Meeting> {
  return call(`/api/meetings/${encodeURIComponent(code)}`, { method: 'GET' }, readMeeting, signal);
}

export function joinMeeting(code: string, name: string, seat: string | null, signal?: AbortSignal): Promise<Admission> {
  return call(
    `/api/meetings/${encodeURIComponent(code)}/join`,
    {
      method: 'POST',
      body: JSON.stringify(seat === null ? { name } : { name, seat }),
      headers: { 'Content-Type': 'application/json' },
    },
    readAdmission,
    signal,
  );
}

async function call<T>(
  path: string,
  request: RequestInit,
  read: (body: unknown) => T,
  signal: AbortSignal | undefined,
): Promise<T> {
  const timeout = new AbortController();
  const abort = (): void => timeout.abort();
  const timer = setTimeout(abort, CALL_TIMEOUT_MS);
  signal?.addEventListener('abort', abort);
  try {
    const headers = new Headers(request.headers);
    headers.set('Accept', 'application/json');
    headers.set('Accept-Language', getPreferences().language === 'en' ? 'en' : 'zh-CN');
    const response = await fetch(path, { ...request, headers, signal: timeout.signal, cache: 'no-store' });
    const body: unknown = await response.json().catch(() => null);
    if (!response.ok) throw problem(response.status, body, response.headers.get('Retry-After'));
    return read(body);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError('unreachable', '', null);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

/** Turns an answer that is not a success into an error with a code, whatever the body looks like. */
export function problem(status: number, body: unknown, retryAfter: string | null): ApiError {
  const fields = asRecord(body);
  const given = fields['code'];
  const detail = typeof fields['detail'] === 'string' ? fields['detail'] : '';
  const code = KNOWN_CODES.find((known) => known === given) ?? codeForStatus(status);
  return new ApiError(code, detail, retryAfterMs(retryAfter));
}

function codeForStatus(status: number): ApiErrorCode {
  switch (status) {
    case 404:
      return 'meeting_not_found';
    case 410:
      return 'meeting_ended';
    case 429:
      return 'too_many_attempts';
    case 502:
    case 503:
    case 504:
      return 'unreachable';
    default:
      return 'other';
  }
}

/** Retry-After as seconds or as a date (RFC 9110 §10.2.3), in milliseconds from now. */
export function retryAfterMs(header: string | null, now: number = Date.now()): number | null {
  if (header === null || header.trim() === '') return null;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS) : null;
}

function readMeeting(body: unknown): Meeting {
  const fields = asRecord(body);
  const endsAt = fields['ends_at'];
  return { code: text(fields, 'code'), name: text(fields, 'name'), endsAt: typeof endsAt === 'string' ? endsAt : null };
}

function readAdmission(body: unknown): Admission {
  const fields = asRecord(body);
  return {
    url: text(fields, 'url'),
    token: text(fields, 'token'),
    identity: text(fields, 'identity'),
    seat: text(fields, 'seat'),
    meeting: readMeeting(fields['meeting']),
  };
}

function asRecord(body: unknown): Record<string, unknown> {
  return typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {};
}

function text(fields: Record<string, unknown>, key: string): string {
  const value = fields[key];
  if (typeof value !== 'string') throw new ApiError('other', '', null);
  return value;
}
