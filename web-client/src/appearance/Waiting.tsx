import { useEffect, useState } from 'react';

/** Nothing for 300 ms, then what is being waited for, then after some seconds that it takes long. */
const QUIET_MS = 300;
const LONG_MS = 5_000;

export function Waiting({ text, longText }: { text: string; longText: string }) {
  const [phase, setPhase] = useState<'quiet' | 'waiting' | 'long'>('quiet');
  useEffect(() => {
    const waiting = setTimeout(() => setPhase('waiting'), QUIET_MS);
    const long = setTimeout(() => setPhase('long'), LONG_MS);
    return () => {
      clearTimeout(waiting);
      clearTimeout(long);
    };
  }, []);
  return (
    <div className="waiting" role="status">
      {phase !== 'quiet' && (
        <>
          <span className="waiting-bar" aria-hidden="true" />
          <p>{phase === 'long' ? longText : text}</p>
        </>
      )}
    </div>
  );
}
