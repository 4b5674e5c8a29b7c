/**
 * Sentences for screen readers, and the same sentences as short notices for the eye.
 * Polite ones are collected and spoken at most once in five seconds, so that twenty people
 * arriving together are one sentence; assertive ones are spoken at once.
 */
import { currentWords } from '../words/words';

/** Least time between two polite announcements. */
export const POLITE_INTERVAL_MS = 5_000;
/** How long a notice stays on the screen: long enough to read two lines twice. */
const NOTICE_MS = 6_000;
const MAX_NOTICES = 3;

export type Urgency = 'polite' | 'assertive';

export interface Notice {
  id: number;
  text: string;
  urgency: Urgency;
}

export interface AnnouncerState {
  polite: string;
  assertive: string;
  notices: readonly Notice[];
}

type Timer = ReturnType<typeof setTimeout>;

export class Announcer {
  private state: AnnouncerState = { polite: '', assertive: '', notices: [] };
  private readonly listeners = new Set<() => void>();
  private waiting: string[] = [];
  private politeTimer: Timer | null = null;
  private lastPolite = Number.NEGATIVE_INFINITY;
  private nextId = 1;

  constructor(private readonly now: () => number = () => Date.now()) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly getState = (): AnnouncerState => this.state;

  /** Speaks without showing. */
  say(text: string, urgency: Urgency = 'polite'): void {
    if (urgency === 'assertive') {
      this.set({ assertive: this.distinct(this.state.assertive, text) });
      return;
    }
    this.waiting.push(text);
    const wait = this.lastPolite + POLITE_INTERVAL_MS - this.now();
    if (wait <= 0) this.speakWaiting();
    else this.politeTimer ??= setTimeout(() => this.speakWaiting(), wait);
  }

  /** Shows for a few seconds, and speaks. */
  notify(text: string, urgency: Urgency = 'polite'): void {
    const notice: Notice = { id: this.nextId++, text, urgency };
    this.set({ notices: [...this.state.notices.filter((shown) => shown.text !== text), notice].slice(-MAX_NOTICES) });
    setTimeout(() => this.dismiss(notice.id), NOTICE_MS);
    this.say(text, urgency);
  }

  dismiss(id: number): void {
    if (this.state.notices.some((notice) => notice.id === id)) {
      this.set({ notices: this.state.notices.filter((notice) => notice.id !== id) });
    }
  }

  private speakWaiting(): void {
    if (this.politeTimer !== null) clearTimeout(this.politeTimer);
    this.politeTimer = null;
    this.lastPolite = this.now();
    const text = [...new Set(this.waiting)].join(currentWords().sentenceBreak);
    this.waiting = [];
    this.set({ polite: this.distinct(this.state.polite, text) });
  }

  /** A live region that gets the same text twice stays silent; a no-break space makes it new. */
  private distinct(before: string, text: string): string {
    return before === text ? `${text}\u00a0` : text;
  }

  private set(change: Partial<AnnouncerState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}

export const announcer = new Announcer();
