import { describe, expect, it } from 'vitest';
import { formatMeetingCode, parseMeetingCode } from './meeting-code';
import { cleanName, isValidName } from './participant-name';

describe('a meeting code', () => {
  it.each(['1234567890', '123 456 7890', '123-456-7890', ' 123–456—7890 ', '123.456.7890', '１２３４５６７８９０'])(
    'is understood when typed as %j',
    (typed) => expect(parseMeetingCode(typed)).toBe('1234567890'),
  );

  it('is taken out of a pasted meeting link', () => {
    expect(parseMeetingCode('https://example.gov.cn/m/1234567890?codec=vp8')).toBe('1234567890');
    expect(parseMeetingCode('请参加会议 https://example.gov.cn/m/123-456-7890')).toBe('1234567890');
  });

  it.each(['', '123', '12345678901', '12345abcde', '123/456/7890'])('is refused when typed as %j', (typed) =>
    expect(parseMeetingCode(typed)).toBeNull(),
  );

  it('is shown in groups of three, three and four', () => {
    expect(formatMeetingCode('1234567890')).toBe('123 456 7890');
    expect(formatMeetingCode('1234')).toBe('123 4');
    expect(formatMeetingCode('')).toBe('');
    expect(formatMeetingCode('123456789012')).toBe('123 456 7890');
  });
});

describe('a name', () => {
  it('may be any 1 to 64 characters, rare ones counted once', () => {
    expect(isValidName('李')).toBe(true);
    expect(isValidName('𬭼'.repeat(64))).toBe(true);
    expect(isValidName('𬭼'.repeat(65))).toBe(false);
    expect(isValidName('')).toBe(false);
    expect(isValidName('a\u0007b')).toBe(false);
  });

  it('loses stray spaces', () => expect(cleanName('  王  小明 ')).toBe('王 小明'));
});
