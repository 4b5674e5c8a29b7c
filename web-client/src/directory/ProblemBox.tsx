import { useEffect, useState } from 'react';
import type { DirectoryProblem } from '../api/directory';
import { useDirectoryWords } from '../words/directory-words';
import { useWords } from '../words/words';

/** What went wrong, and what to do now, in the server's words; a code of ours only where there was no answer. */
export function ProblemBox({ problem, onRetry }: { problem: DirectoryProblem; onRetry?: () => void }) {
  const words = useDirectoryWords();
  const { retry, api } = useWords();
  const seconds = useSecondsLeft(problem);
  const isWordless = problem.title === '';
  return (
    <div className="form-error" role="alert" data-testid="problem" data-code={problem.code}>
      <p>{isWordless ? words.problems.unreachable : problem.title}</p>
      <p className="problem-detail">
        {isWordless ? words.problems.unreachableNext : `${problem.detail} ${problem.next}`}
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
