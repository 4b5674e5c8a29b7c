import { useEffect, useState } from 'react';
import { clock } from '../../appearance/clock';
import { useWords, type Words } from '../../words/words';
import type { Outage } from '../session/outage';
import { outagePhase, type OutagePhase } from '../session/reconnect-policy';

interface Props {
  outage: Outage;
  onRetry: () => void;
  onLeave: () => void;
}

const TICK_MS = 500;

/** What is down, what stays safe, what is done about it. */
function sentence({ connection }: Words, { kind }: Outage, phase: OutagePhase): string {
  if (kind === 'media') return phase === 'retry' ? connection.mediaStillDown : connection.mediaDown;
  if (kind === 'signalling') return phase === 'retry' ? connection.signallingStillDown : connection.signallingDown;
  if (phase !== 'retry') return connection.reconnecting;
  return navigator.onLine ? connection.unreachable + connection.stillTrying : connection.offline;
}

/** Three seconds nothing but a grey dot, then words and the length of the outage, after fifteen buttons too. */
export function ReconnectBanner({ outage, onRetry, onLeave }: Props) {
  const words = useWords();
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  const length = Math.max(0, now - outage.since);
  const phase = outagePhase(length);
  return (
    <section
      className={`reconnect reconnect-${phase}`}
      aria-label={words.connection.region}
      data-testid="reconnect-banner"
      data-phase={phase}
      data-kind={outage.kind}
    >
      <span className="reconnect-dot" aria-hidden="true" />
      {/* Said once per phase: the clock beside it must not be read out every second. */}
      <p role="alert">{phase !== 'quiet' && sentence(words, outage, phase)}</p>
      {phase !== 'quiet' && <span className="numeric reconnect-clock">{words.connection.downFor(clock(length))}</span>}
      {phase === 'retry' && (
        <>
          <button type="button" className="button primary small" onClick={onRetry} data-testid="reconnect-retry">
            {words.connection.retryNow}
          </button>
          <button type="button" className="button small" onClick={onLeave} data-testid="reconnect-leave">
            {words.connection.leave}
          </button>
        </>
      )}
    </section>
  );
}
