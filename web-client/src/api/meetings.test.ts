import { afterEach, describe, expect, it, vi } from 'vitest';
import { ApiError, getMeeting, joinMeeting, problem, retryAfterMs } from './meetings';

afterEach(() => vi.unstubAllGlobals());

describe('an answer of the server', () => {
  it('keeps its stable code', () => {
    expect(problem(410, { code: 'meeting_ended', detail: 'x' }, null).code).toBe('meeting_ended');
    expect(problem(503, { code: 'draining' }, '2')).toMatchObject({ code: 'draining', retryAfterMs: 2000 });
  });

  it('without problem details is told apart by its status', () => {
    expect(problem(404, null, null).code).toBe('meeting_not_found');
    expect(problem(502, '<html>', null).code).toBe('unreachable');
    expect(problem(500, { code: 'made_up' }, null).code).toBe('other');
  });

  it('says when to try again, as seconds or as a date, within reason', () => {
    expect(retryAfterMs('30')).toBe(30_000);
    expect(retryAfterMs('Tue, 24 Nov 2026 10:00:10 GMT', Date.parse('2026-11-24T10:00:00Z'))).toBe(10_000);
    expect(retryAfterMs('999999')).toBe(600_000);
    expect(retryAfterMs('-5')).toBe(0);
    expect(retryAfterMs('soon')).toBeNull();
    expect(retryAfterMs(null)).toBeNull();
  });

  it('that never comes is "unreachable"', async () => {
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('network')));
    await expect(getMeeting('1234567890')).rejects.toMatchObject({ code: 'unreachable' });
  });

  it('is checked before it is believed', async () => {
    vi.stubGlobal('fetch', () => Promise.resolve(new Response('{"code":1}', { status: 200 })));
    await expect(getMeeting('1234567890')).rejects.toBeInstanceOf(ApiError);
  });

  it('to a join carries the seat only when there is one', async () => {
    const bodies: unknown[] = [];
    vi.stubGlobal('fetch', (_path: string, request: RequestInit) => {
      bodies.push(JSON.parse(request.body as string));
      const meeting = { code: '1', name: 'm', ends_at: null };
      return Promise.resolve(Response.json({ url: '', token: 't', identity: 'i', seat: 's', meeting }));
    });
    await joinMeeting('1', '王', null);
    await joinMeeting('1', '王', 's');
    expect(bodies).toEqual([{ name: '王' }, { name: '王', seat: 's' }]);
  });
});
