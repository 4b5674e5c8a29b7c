import { describe, expect, it } from 'vitest';
import { isMediaUp, outageOf, QUIET_IS_DOWN_MS } from './outage';

describe('an outage', () => {
  it.each([
    [null, null, null],
    [null, 5, { kind: 'media', since: 5 }],
    [7, null, { kind: 'signalling', since: 7 }],
    [7, 5, { kind: 'everything', since: 5 }],
    [3, 5, { kind: 'everything', since: 3 }],
  ] as const)('with signalling down since %s and media since %s is %o', (signallingDownSince, mediaDownSince, expected) =>
    expect(outageOf({ signallingDownSince, mediaDownSince })).toEqual(expected),
  );
});

describe('media', () => {
  it.each([
    [['connected'], true],
    [['completed', 'new'], true],
    [['connected', 'disconnected'], false],
    [['failed'], false],
    [['checking'], null],
    [['connected', 'checking'], null],
    [['new', 'closed'], null],
    [[], null],
  ] as const)('by the checks %o is up: %s', (states, expected) => expect(isMediaUp(states, 0)).toBe(expected));

  it('is down when nothing came for long, before the browser says so', () => {
    expect(isMediaUp(['connected'], QUIET_IS_DOWN_MS - 1)).toBe(true);
    expect(isMediaUp(['connected'], QUIET_IS_DOWN_MS)).toBe(false);
  });
});
