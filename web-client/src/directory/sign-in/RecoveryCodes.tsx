import { useDirectoryWords } from '../../words/directory-words';
import { useHeading } from '../use-heading';
import { CopyText } from '../CopyText';

/** Shown once. */
export function RecoveryCodes({ codes, onDone }: { codes: string[]; onDone: () => void }) {
  const words = useDirectoryWords().recoveryCodes;
  const heading = useHeading();
  return (
    <>
      <h1 ref={heading} tabIndex={-1}>
        {words.title}
      </h1>
      <p className="lead">{words.lead}</p>
      <CopyText label={words.title} text={codes.join('\n')} testId="recovery-codes" />
      <button type="button" className="button primary wide" data-testid="recovery-done" onClick={onDone}>
        {words.kept}
      </button>
    </>
  );
}
