/**
 * Calls to the directory, typed by the server's own description (`schema.ts`, made by `npm run api-types`).
 * Every failure becomes a `DirectoryProblem` with the words of the server in the visitor's language. Where the server
 * wants a proof of who one is, or a reason, the visitor is asked and the same request goes out again.
 */
import createClient from 'openapi-fetch';
import { getPreferences } from '../preferences/preferences';
import { retryAfterMs } from './meetings';
import type { components, paths } from './schema';

export type Schemas = components['schemas'];

/** How long one call may take before it counts as the server being out of reach. */
const CALL_TIMEOUT_MS = 20_000;

export class DirectoryProblem extends Error {
  constructor(
    /** As in the server's problem details; `unreachable` where there was no answer. */
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    readonly next: string,
    readonly retryAfterMs: number | null,
  ) {
    super(`${code}: ${detail}`);
    this.name = 'DirectoryProblem';
  }
}

/** What the pages do when the server wants something first. */
export interface Asker {
  /** Proves again who one is; false where the visitor would not. */
  prove(): Promise<boolean>;
  /** Says why; null where the visitor would not. */
  giveReason(): Promise<string | null>;
  /** The session has ended, or its second factor is missing. */
  sessionChanged(code: 'signed_out' | 'second_factor_needed'): void;
}

let asker: Asker | null = null;

export function setAsker(next: Asker | null): void {
  asker = next;
}

/** The stable code of an answer that is problem details; null of any other. */
async function codeOf(response: Response): Promise<string | null> {
  if (response.ok) return null;
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => null);
  return textOf(body, 'code');
}

function textOf(body: unknown, key: string): string {
  const value = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[key] : undefined;
  return typeof value === 'string' ? value : '';
}

async function once(request: Request): Promise<Response> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), CALL_TIMEOUT_MS);
  const abort = (): void => timeout.abort();
  request.signal.addEventListener('abort', abort);
  try {
    return await fetch(new Request(request.clone(), { signal: timeout.signal }));
  } finally {
    clearTimeout(timer);
    request.signal.removeEventListener('abort', abort);
  }
}

async function send(request: Request): Promise<Response> {
  request.headers.set('Accept-Language', getPreferences().language === 'en' ? 'en' : 'zh-CN');
  // No form can send this type, which is how the server tells our pages from others'.
  if (request.method !== 'GET' && request.method !== 'DELETE') request.headers.set('Content-Type', 'application/json');
  let response = await once(request);
  let code = await codeOf(response);
  if (asker === null) return response;
  if (code === 'step_up_needed' && (await asker.prove())) {
    response = await once(request);
    code = await codeOf(response);
  }
  if (code === 'reason_needed') {
    const reason = await asker.giveReason();
    if (reason !== null) {
      request.headers.set('Reason', encodeURIComponent(reason));
      response = await once(request);
      code = await codeOf(response);
    }
  }
  if (code === 'signed_out' || code === 'second_factor_needed') asker.sessionChanged(code);
  return response;
}

export const directory = createClient<paths>({ baseUrl: location.origin, fetch: send, cache: 'no-store' });

/** What was answered; throws a `DirectoryProblem` where it was not a success. */
export async function answered<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  let outcome;
  try {
    outcome = await call;
  } catch {
    throw new DirectoryProblem('unreachable', '', '', '', null);
  }
  const { data, error, response } = outcome;
  if (response.ok) return data as T;
  const say = (key: string): string => textOf(error, key);
  const wait = retryAfterMs(response.headers.get('Retry-After'));
  throw new DirectoryProblem(say('code'), say('title'), say('detail'), say('next'), wait);
}

/** The version that was seen, as a change says it. */
export function seen(of: { version: number }): { 'If-Match': string } {
  return { 'If-Match': `"${of.version}"` };
}

/**
 * The key under which something is made once: the same as long as the same is sent, so that a second press after a lost
 * answer makes nothing twice.
 */
export function makeOnce(): (body: unknown) => { 'Idempotency-Key': string } {
  let last = '';
  let key = '';
  return (body) => {
    const text = JSON.stringify(body);
    if (text !== last) {
      last = text;
      key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
    }
    return { 'Idempotency-Key': key };
  };
}
