import { ProblemBox } from './ProblemBox';
import type { useAct } from './use-answer';

interface Props {
  act: Pick<ReturnType<typeof useAct>, 'isBusy' | 'problem'>;
  /** What is done, as the button says it. */
  verb: string;
  testId: string;
}

/** How the form of a dialog ends: why it was not done, where it was not, and the button that does it. */
export function FormEnd({ act, verb, testId }: Props) {
  return (
    <>
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      <div className="dialog-buttons">
        <button type="submit" className="button primary" aria-disabled={act.isBusy} data-testid={testId}>
          {verb}
        </button>
      </div>
    </>
  );
}
