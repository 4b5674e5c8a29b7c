/** Addresses of the client. The meeting's own progress is a state machine, not a set of addresses. */
import { useSyncExternalStore } from 'react';
import { parseMeetingCode } from '../join/meeting-code';

export type Route = { page: 'join' } | { page: 'meeting'; code: string } | { page: 'left' } | { page: 'directory' };

/** The first parts of the directory's addresses; what comes after them is read where its pages are. */
const DIRECTORY = /^\/(login|setup|invitation|account|admin)(\/|$)/;

export function routeOf(pathname: string): Route {
  const meeting = /^\/m\/([^/]+)\/?$/.exec(pathname);
  if (meeting?.[1] !== undefined) {
    let typed = meeting[1];
    try {
      typed = decodeURIComponent(typed);
    } catch {
      // A broken escape is no code; what was typed is shown as not found below.
    }
    return { page: 'meeting', code: parseMeetingCode(typed) ?? typed };
  }
  if (/^\/left\/?$/.test(pathname)) return { page: 'left' };
  if (DIRECTORY.test(pathname)) return { page: 'directory' };
  return { page: 'join' };
}

const listeners = new Set<() => void>();

function notify(): void {
  for (const listener of listeners) listener();
}

window.addEventListener('popstate', notify);

/** Goes to another page of this client. The switches in the address (`?codec=`, `?v0=`) come along. */
export function navigate(pathname: string, how: 'push' | 'replace' = 'push'): void {
  const address = pathname + location.search;
  if (how === 'push') history.pushState(null, '', address);
  else history.replaceState(null, '', address);
  window.scrollTo(0, 0);
  notify();
}

export function usePathname(): string {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => location.pathname,
  );
}
