import { useState } from 'react';
import { Icon } from '../appearance/Icon';
import { useDirectoryWords } from '../words/directory-words';

/** Something that is shown once, to be copied. */
export function CopyText({ label, text, testId }: { label: string; text: string; testId: string }) {
  const words = useDirectoryWords().once;
  const [outcome, setOutcome] = useState<'none' | 'copied' | 'failed'>('none');
  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      setOutcome('copied');
    } catch {
      // Browsers refuse it where the page is not secure.
      setOutcome('failed');
    }
  }
  return (
    <div className="copy-text">
      <code data-testid={testId}>{text}</code>
      <button type="button" className="button small" aria-label={`${words.copy} ${label}`} onClick={() => void copy()}>
        <Icon name={outcome === 'copied' ? 'check' : 'copy'} size="1.25rem" />
        {outcome === 'copied' ? words.copied : words.copy}
      </button>
      {outcome === 'failed' && <p className="field-error">{words.notCopied}</p>}
    </div>
  );
}
