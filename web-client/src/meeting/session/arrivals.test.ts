import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { announcer } from '../../accessibility/announcer';
import { Arrivals } from './arrivals';

describe('arrivals', () => {
  const said: string[] = [];
  beforeEach(() => {
    vi.useFakeTimers();
    said.length = 0;
    vi.spyOn(announcer, 'say').mockImplementation((text) => void said.push(text));
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  it('are one sentence when they come together', () => {
    const arrivals = new Arrivals();
    arrivals.joined('a', '王建国');
    arrivals.joined('b', '李秀英');
    arrivals.left('c', '张伟');
    vi.advanceTimersByTime(5_000);
    expect(said).toEqual(['王建国等 2 人加入了会议', '张伟离开了会议']);
  });

  it('are not told of who went and came back in the same moment', () => {
    const arrivals = new Arrivals();
    arrivals.left('a', '王建国');
    arrivals.joined('a', '王建国');
    arrivals.joined('b', '李秀英');
    arrivals.left('b', '李秀英');
    vi.advanceTimersByTime(5_000);
    expect(said).toEqual([]);
  });
});
