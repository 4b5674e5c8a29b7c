import { useEffect, useState } from 'react';
import type { DirectoryProblem } from '../api/directory';
import { useDirectoryWords } from '../words/directory-words';
import { useWords } from '../words/words';

/** What went wrong, and what to do now. */
export function ProblemBox({ problem, onRetry }: { problem: DirectoryProblem; onRetry?: () => void }) {
  const words = useDirectoryWords();
  const { retry, api } = useWords();
  const seconds = useSecondsLeft(problem);
  // Where there was no answer of the server's, the words are ours.
  const own = problem.title !== '' ? null : problem.code === 'no_passkey' ? words.problems.noPasskey : words.problems.unreachable;
  return (
    <div className="form-error" role="alert" data-testid="problem" data-code={problem.code}>
      <p>{own === null ? problem.title : own.title}</p>
      <p className="problem-detail">
        {own === null ? `${problem.detail} ${problem.next}` : own.next}
        {seconds > 0 && <span className="numeric">{api.retryAfter(seconds)}</span>}
      </p>
      {onRetry !== undefined && (
        <button type="button" className="button small" onClick={onRetry}>
          {retry}
        </button>
      )}
    </div>
  );
}

function useSecondsLeft(problem: DirectoryProblem): number {
  const [until, setUntil] = useState(0);
  const [now, setNow] = useState(0);
  useEffect(() => {
    setUntil(problem.retryAfterMs === null ? 0 : Date.now() + problem.retryAfterMs);
    if (problem.retryAfterMs === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [problem]);
  return Math.max(0, Math.ceil((until - now) / 1000));
}
