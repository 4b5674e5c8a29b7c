/** What a page has asked the server for: not there yet, there, or why not. */
import { useCallback, useEffect, useRef, useState } from 'react';
import { DirectoryProblem } from '../api/directory';

export interface Asked<T> {
  /** The last answer; stays while it is asked for anew. */
  value: T | null;
  problem: DirectoryProblem | null;
  isLoading: boolean;
  reload: () => void;
}

/** Asks whenever `key` is another one. With null as the key nothing is asked. */
export function useAnswer<T>(key: string | null, ask: () => Promise<T>): Asked<T> {
  const [state, setState] = useState<{ key: string | null; value: T | null; problem: DirectoryProblem | null; round: number }>({
    key: null,
    value: null,
    problem: null,
    round: -1,
  });
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  useEffect(() => {
    latest.current = ask;
  });
  useEffect(() => {
    if (key === null) return;
    let isWanted = true;
    latest.current().then(
      (value) => isWanted && setState({ key, value, problem: null, round }),
      (error: unknown) => {
        if (!isWanted) return;
        if (!(error instanceof DirectoryProblem)) throw error;
        setState((old) => ({ key, value: old.key === key ? old.value : null, problem: error, round }));
      },
    );
    return () => {
      isWanted = false;
    };
  }, [key, round]);
  const isCurrent = state.key === key;
  return {
    value: isCurrent ? state.value : null,
    problem: isCurrent ? state.problem : null,
    isLoading: key !== null && (!isCurrent || state.round !== round),
    reload: useCallback(() => setRound((n) => n + 1), []),
  };
}

/** One thing that a press does: not twice at once, and with the problem it met. */
export function useAct(): {
  isBusy: boolean;
  problem: DirectoryProblem | null;
  clear: () => void;
  run: (act: () => Promise<void>) => Promise<void>;
} {
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<DirectoryProblem | null>(null);
  const running = useRef(false);
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  const run = useCallback(async (act: () => Promise<void>): Promise<void> => {
    if (running.current) return;
    running.current = true;
    setBusy(true);
    setProblem(null);
    try {
      await act();
    } catch (error) {
      if (!(error instanceof DirectoryProblem)) throw error;
      if (mounted.current) setProblem(error);
    } finally {
      running.current = false;
      if (mounted.current) setBusy(false);
    }
  }, []);
  return { isBusy, problem, clear: useCallback(() => setProblem(null), []), run };
}
