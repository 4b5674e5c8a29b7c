import { describe, expect, it } from 'vitest';
import { noticeOn } from './notice';

const well = { isSelf: false, quality: 'excellent', isCameraPaused: false, isScreenPaused: false } as const;

describe('the notice on a tile', () => {
  it.each([
    ['all is well', well, 'person', 'good', null],
    ['the other is on a bad line', { ...well, quality: 'poor' }, 'person', 'good', 'poor'],
    ['nothing comes from the other', { ...well, quality: 'lost' }, 'person', 'poor', 'lost'],
    ['the picture is paused on a bad line of one\'s own', { ...well, isCameraPaused: true }, 'person', 'poor', 'pausedForLine'],
    ['the picture is paused though the line is well', { ...well, isCameraPaused: true }, 'person', 'excellent', 'pausedForNode'],
    ['the camera is paused and the screen is not', { ...well, isCameraPaused: true }, 'screen', 'good', null],
    ['the screen is paused', { ...well, isScreenPaused: true }, 'screen', 'lost', 'pausedForLine'],
    ['a picture is paused of who is gone', { ...well, quality: 'lost', isCameraPaused: true }, 'person', 'good', 'lost'],
    ['it is one\'s own', { ...well, isSelf: true, quality: 'lost' }, 'person', 'lost', null],
  ] as const)('when %s', (_, view, kind, own, expected) => expect(noticeOn(view, kind, own)).toBe(expected));
});
