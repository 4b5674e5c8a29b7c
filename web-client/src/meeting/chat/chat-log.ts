/** The messages of the meeting, bounded in length and number. Text only: nothing in it is ever markup. */
import { charactersOf } from '../../words/characters';

export interface ChatMessage {
  id: string;
  from: string;
  name: string;
  text: string;
  /** Longer than shown; the rest was thrown away. */
  isCut: boolean;
  isOwn: boolean;
  /** Milliseconds since 1970, by this page's clock. */
  at: number;
}

/** The topic by which LiveKit's clients know chat among text streams. */
export const CHAT_TOPIC = 'lk.chat';
/** What may be written in one message, in characters. */
export const MAX_WRITTEN = 1_000;
/** What is kept of a message that another client sent. */
export const MAX_SHOWN = 2_000;
/** Older messages fall out; an afternoon of talk fits. */
export const MAX_HISTORY = 500;

export interface ChatState {
  messages: readonly ChatMessage[];
  unread: number;
}

export const EMPTY_CHAT: ChatState = { messages: [], unread: 0 };

/** @param isSeen the chat is open, so the message does not count as unread */
export function withMessage(chat: ChatState, message: Omit<ChatMessage, 'isCut'>, isSeen: boolean): ChatState {
  if (chat.messages.some((known) => known.id === message.id)) return chat;
  const characters = charactersOf(message.text);
  const text = characters.slice(0, MAX_SHOWN).join('');
  if (text.trim() === '') return chat;
  const kept: ChatMessage = { ...message, text, isCut: characters.length > MAX_SHOWN };
  return {
    messages: [...chat.messages, kept].slice(-MAX_HISTORY),
    unread: message.isOwn || isSeen ? chat.unread : Math.min(chat.unread + 1, MAX_HISTORY),
  };
}

export function withAllRead(chat: ChatState): ChatState {
  return chat.unread === 0 ? chat : { ...chat, unread: 0 };
}

/** What is sent: without stray space around it, null when nothing is left or it is too long. */
export function cleanMessage(written: string): string | null {
  const text = written.trim();
  return text === '' || charactersOf(text).length > MAX_WRITTEN ? null : text;
}
