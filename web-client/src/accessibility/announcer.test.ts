import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Announcer, POLITE_INTERVAL_MS } from './announcer';

describe('the announcer', () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it('speaks polite sentences at most once in five seconds, together', () => {
    const announcer = new Announcer();
    announcer.say('一');
    expect(announcer.getState().polite).toBe('一');
    announcer.say('二');
    announcer.say('三');
    announcer.say('二');
    expect(announcer.getState().polite).toBe('一');
    vi.advanceTimersByTime(POLITE_INTERVAL_MS);
    expect(announcer.getState().polite).toBe('二。三');
  });

  it('speaks assertive sentences at once, also when repeated', () => {
    const announcer = new Announcer();
    announcer.say('您已被静音', 'assertive');
    const first = announcer.getState().assertive;
    announcer.say('您已被静音', 'assertive');
    expect(announcer.getState().assertive).not.toBe(first);
    expect(announcer.getState().assertive.trim()).toBe('您已被静音');
  });

  it('shows at most three notices, each once, and takes them away by itself', () => {
    const announcer = new Announcer();
    for (const text of ['一', '二', '三', '四', '四']) announcer.notify(text);
    expect(announcer.getState().notices.map((notice) => notice.text)).toEqual(['二', '三', '四']);
    vi.advanceTimersByTime(60_000);
    expect(announcer.getState().notices).toEqual([]);
  });
});
