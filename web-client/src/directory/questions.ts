/** What the server wants from the visitor in the middle of a call: a proof of who one is, or a reason. */
import { useSyncExternalStore } from 'react';
import { setAsker } from '../api/directory';
import { loadSession, sessionEnded } from './session';

export type Question =
  | { about: 'proof'; answer: (isProved: boolean) => void }
  | { about: 'reason'; answer: (reason: string | null) => void };

let open: Question | null = null;
const listeners = new Set<() => void>();

function set(next: Question | null): void {
  open = next;
  for (const listener of listeners) listener();
}

export function useQuestion(): Question | null {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => open,
  );
}

/** Two calls may want the same at once: they wait for one answer. */
function asking<T>(make: (answer: (value: T) => void) => Question): () => Promise<T> {
  let waiting: Promise<T> | null = null;
  return () => {
    waiting ??= new Promise<T>((resolve) => {
      set(
        make((value) => {
          waiting = null;
          set(null);
          resolve(value);
        }),
      );
    });
    return waiting;
  };
}

export function answerQuestions(): void {
  setAsker({
    prove: asking<boolean>((answer) => ({ about: 'proof', answer })),
    giveReason: asking<string | null>((answer) => ({ about: 'reason', answer })),
    sessionChanged: (code) => {
      if (code === 'signed_out') sessionEnded();
      else void loadSession();
    },
  });
}
