import { useState, type SubmitEvent } from 'react';
import { Field } from '../../appearance/Field';
import { useDirectoryWords } from '../../words/directory-words';
import { ProblemBox } from '../ProblemBox';
import { useAct } from '../use-answer';
import { makePasskey } from './passkey';

/** A passkey is made: the browser asks for a finger, a face or a key. `onDone` gets recovery codes where there were none. */
export function NewPasskey({ onDone }: { onDone: (codes: string[] | null) => void }) {
  const all = useDirectoryWords();
  const words = all.newPasskey;
  const [name, setName] = useState('');
  const [wasSent, setSent] = useState(false);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (name.trim() === '') return;
    void act.run(async () => onDone(await makePasskey(name.trim())));
  }
  return (
    <form noValidate onSubmit={submit}>
      <p className="lead">{words.lead}</p>
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      <Field
        label={words.name}
        hint={words.nameHint}
        error={wasSent && name.trim() === '' ? all.missing : null}
        value={name}
        onChange={(event) => setName(event.target.value)}
        required
        data-testid="passkey-name"
      />
      <button type="submit" className="button primary wide" aria-disabled={act.isBusy} data-testid="passkey-submit">
        {words.submit}
      </button>
    </form>
  );
}
