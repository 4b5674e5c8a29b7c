import { describe, expect, it } from 'vitest';
import { cleanMessage, EMPTY_CHAT, MAX_HISTORY, MAX_SHOWN, MAX_WRITTEN, withAllRead, withMessage } from './chat-log';

const message = (id: string, text = '您好') => ({ id, from: 'a', name: '王', text, isOwn: false, at: 0 });

describe('the chat', () => {
  it('counts what has not been seen', () => {
    let chat = withMessage(EMPTY_CHAT, message('1'), false);
    chat = withMessage(chat, { ...message('2'), isOwn: true }, false);
    chat = withMessage(chat, message('3'), true);
    expect(chat.unread).toBe(1);
    expect(withAllRead(chat).unread).toBe(0);
  });

  it('keeps a bounded number of bounded messages', () => {
    let chat = EMPTY_CHAT;
    for (let index = 0; index < MAX_HISTORY + 5; index++) chat = withMessage(chat, message(String(index)), false);
    expect(chat.messages).toHaveLength(MAX_HISTORY);
    expect(chat.messages[0]?.id).toBe('5');
    const long = withMessage(EMPTY_CHAT, message('x', '长'.repeat(MAX_SHOWN + 1)), false).messages[0];
    expect(long).toMatchObject({ isCut: true });
    expect(long?.text).toHaveLength(MAX_SHOWN);
  });

  it('takes the same message once, and empty ones never', () => {
    const once = withMessage(EMPTY_CHAT, message('1'), false);
    expect(withMessage(once, message('1'), false)).toBe(once);
    expect(withMessage(once, message('2', '  \n'), false)).toBe(once);
  });

  it('refuses to send nothing or too much', () => {
    expect(cleanMessage('  好 ')).toBe('好');
    expect(cleanMessage('  ')).toBeNull();
    expect(cleanMessage('长'.repeat(MAX_WRITTEN + 1))).toBeNull();
  });
});
