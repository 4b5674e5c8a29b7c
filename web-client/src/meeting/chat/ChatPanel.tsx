import { charactersOf } from '../../words/characters';
import { useEffect, useRef, useState, type SubmitEvent, type KeyboardEvent } from 'react';
import { timeOfDay } from '../../appearance/clock';
import { useWords } from '../../words/words';
import { readDraft, writeDraft } from '../session/seat-memory';
import { cleanMessage, MAX_WRITTEN, type ChatState } from './chat-log';

interface Props {
  code: string;
  chat: ChatState;
  onSend: (text: string) => Promise<boolean>;
}

/** From here on the writer is told how much room is left. */
const WARN_BELOW = 100;
/** A reader this close to the end is carried along by new messages. */
const FOLLOW_DISTANCE = 80;

export function ChatPanel({ code, chat, onSend }: Props) {
  const words = useWords();
  const [draft, setDraft] = useState(() => readDraft(code));
  const [failed, setFailed] = useState(false);
  const list = useRef<HTMLDivElement>(null);
  const input = useRef<HTMLTextAreaElement>(null);
  const follows = useRef(true);
  const left = MAX_WRITTEN - charactersOf(draft).length;

  useEffect(() => input.current?.focus(), []);
  useEffect(() => {
    const element = list.current;
    if (element !== null && follows.current) element.scrollTop = element.scrollHeight;
  }, [chat.messages]);

  function write(text: string): void {
    setDraft(text);
    setFailed(false);
    writeDraft(code, text);
  }

  async function send(): Promise<void> {
    const text = cleanMessage(draft);
    if (text === null) return;
    follows.current = true;
    write('');
    if (!(await onSend(text))) {
      write(text);
      setFailed(true);
    }
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent): void {
    // Enter that ends the composition of a Chinese word is not "send".
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    void send();
  }

  return (
    <>
      <div
        className="chat-list"
        ref={list}
        // A list that scrolls must be reachable by keyboard.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={words.chat.title}
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
          follows.current = scrollHeight - scrollTop - clientHeight < FOLLOW_DISTANCE;
        }}
      >
        {chat.messages.length === 0 && <p className="panel-empty">{words.chat.empty}</p>}
        {chat.messages.map((message) => (
          <div
            key={message.id}
            className={message.isOwn ? 'chat-message chat-own' : 'chat-message'}
            data-testid="chat-message"
            data-from={message.from}
          >
            <p className="chat-head">
              <strong>{message.isOwn ? words.meeting.you : message.name}</strong>
              <span className="numeric">{timeOfDay(message.at)}</span>
            </p>
            <p className="chat-text">
              {message.text}
              {message.isCut && <em> {words.chat.cut}</em>}
            </p>
          </div>
        ))}
      </div>
      <form
        className="chat-form"
        onSubmit={(event: SubmitEvent) => {
          event.preventDefault();
          void send();
        }}
      >
        {failed && (
          <p className="field-error" role="alert">
            {words.chat.failed}
          </p>
        )}
        {left < WARN_BELOW && (
          <p className={left < 0 ? 'field-error' : 'field-hint'} role="status">
            {left < 0 ? words.chat.tooLong(MAX_WRITTEN) : words.chat.left(left)}
          </p>
        )}
        <div className="chat-row">
          <textarea
            ref={input}
            className="text-input"
            rows={2}
            value={draft}
            aria-label={words.chat.input}
            aria-invalid={left < 0}
            placeholder={words.chat.placeholder}
            onChange={(event) => write(event.target.value)}
            onKeyDown={onKeyDown}
            data-testid="chat-input"
          />
          <button type="submit" className="button primary small" aria-disabled={cleanMessage(draft) === null} data-testid="chat-send">
            {words.chat.send}
          </button>
        </div>
      </form>
    </>
  );
}

export function UnreadBadge({ count }: { count: number }) {
  const words = useWords();
  if (count === 0) return null;
  return (
    <span className="badge numeric" data-testid="chat-unread">
      <span aria-hidden="true">{count > 99 ? '99+' : count}</span>
      <span className="visually-hidden">{words.controls.unread(count)}</span>
    </span>
  );
}
