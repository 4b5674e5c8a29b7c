/** Who is signed in, for all pages of the directory. The session itself is a cookie that no script reads. */
import { useSyncExternalStore } from 'react';
import { answered, directory, DirectoryProblem, type Schemas } from '../api/directory';

export type Me = Schemas['Me'];

export type Session =
  | { at: 'unknown' }
  | { at: 'out'; because: 'ended' | null }
  | { at: 'failed'; problem: DirectoryProblem }
  /** The second factor is missing: nothing but giving it, or setting one up, is possible. */
  | { at: 'half'; me: Me }
  | { at: 'in'; me: Me };

let current: Session = { at: 'unknown' };
const listeners = new Set<() => void>();

function set(next: Session): void {
  current = next;
  for (const listener of listeners) listener();
}

export function useSession(): Session {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}

export function signedInAs(me: Me): void {
  set({ at: me.session.needs_second_factor ? 'half' : 'in', me });
}

export function sessionEnded(): void {
  if (current.at === 'in' || current.at === 'half') set({ at: 'out', because: 'ended' });
}

export async function loadSession(): Promise<void> {
  try {
    signedInAs(await answered(directory.GET('/api/session')));
  } catch (error) {
    if (!(error instanceof DirectoryProblem)) throw error;
    set(error.code === 'signed_out' ? { at: 'out', because: null } : { at: 'failed', problem: error });
  }
}

export async function signOut(): Promise<void> {
  await answered(directory.DELETE('/api/session'));
  set({ at: 'out', because: null });
}
