import { describe, expect, it } from 'vitest';
import {
  outagePhase,
  rejoinDelay,
  resumeDelay,
  RESUME_WINDOW_MS,
  RESUME_WINDOW_WITH_MEDIA_MS,
  waitBeforeRejoin,
} from './reconnect-policy';

describe('joining again', () => {
  it('waits 0.3, 0.6, 1.2 … and never more than 5 seconds', () => {
    expect([0, 1, 2, 3, 4, 5, 50].map((attempt) => rejoinDelay(attempt, 0.5))).toEqual([300, 600, 1200, 2400, 4800, 5000, 5000]);
    for (let attempt = 0; attempt < 100; attempt++) {
      for (const random of [0, 0.25, 0.999]) expect(rejoinDelay(attempt, random)).toBeLessThanOrEqual(5000);
    }
  });

  it('spreads out around each delay', () => {
    expect(rejoinDelay(2, 0)).toBe(840);
    expect(rejoinDelay(2, 0.9999)).toBeGreaterThan(1500);
  });

  it('respects what the server asked for', () => {
    expect(waitBeforeRejoin(0, 0.5, 8000)).toBe(8000);
    expect(waitBeforeRejoin(5, 0.5, 1000)).toBe(5000);
    expect(waitBeforeRejoin(0, 0.5, null)).toBe(300);
  });
});

describe('resuming the session', () => {
  it('starts at once, stays quick, and outlasts a line that is gone for twenty seconds', () => {
    expect(resumeDelay(0, 0, 0, false)).toBe(0);
    expect(resumeDelay(9, 20_500, 0.5, false)).toBeLessThanOrEqual(2400);
    expect(resumeDelay(20, RESUME_WINDOW_MS, 0.5, false)).toBeNull();
  });

  it('goes on for a minute while sound and pictures go on', () => {
    expect(resumeDelay(20, RESUME_WINDOW_MS, 0.5, true)).toBeLessThanOrEqual(2400);
    expect(resumeDelay(20, RESUME_WINDOW_WITH_MEDIA_MS, 0.5, true)).toBeNull();
  });
});

describe('what the visitor sees of an outage', () => {
  it.each([
    [0, 'quiet'],
    [2_999, 'quiet'],
    [3_000, 'words'],
    [14_999, 'words'],
    [15_000, 'retry'],
    [600_000, 'retry'],
  ] as const)('after %i ms is %s', (ms, phase) => expect(outagePhase(ms)).toBe(phase));
});
