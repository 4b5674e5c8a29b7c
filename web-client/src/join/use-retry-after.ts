import { useEffect, useState } from 'react';

/** Counts down the seconds a server asked to wait; 0 when there is nothing to wait for. */
export function useRetryAfter(): [seconds: number, start: (ms: number) => void] {
  const [until, setUntil] = useState(0);
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    if (until === 0) return;
    const tick = (): void => {
      const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
      setSeconds(left);
      if (left === 0) setUntil(0);
    };
    tick();
    const timer = setInterval(tick, 500);
    return () => clearInterval(timer);
  }, [until]);
  return [seconds, (ms) => setUntil(Date.now() + ms)];
}
