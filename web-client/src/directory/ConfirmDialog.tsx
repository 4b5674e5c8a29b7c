import { Dialog } from '../appearance/Dialog';
import { ProblemBox } from './ProblemBox';
import { useAct } from './use-answer';

interface Props {
  title: string;
  text: string;
  /** What is done, as the button says it. */
  verb: string;
  /** What not doing it is called. */
  keep: string;
  onClose: () => void;
  act: () => Promise<void>;
}

/** Asks before what can't be taken back. Closes when it is done, and says why where it is not. */
export function ConfirmDialog({ title, text, verb, keep, onClose, act }: Props) {
  const { isBusy, problem, run } = useAct();
  return (
    <Dialog title={title} onClose={onClose} testId="confirm-dialog">
      <p className="lead">{text}</p>
      {problem !== null && <ProblemBox problem={problem} />}
      <div className="dialog-buttons">
        <button
          type="button"
          className="button danger"
          aria-disabled={isBusy}
          data-testid="confirm"
          onClick={() =>
            void run(async () => {
              await act();
              onClose();
            })
          }
        >
          {verb}
        </button>
        <button type="button" className="button" onClick={onClose}>
          {keep}
        </button>
      </div>
    </Dialog>
  );
}
