import { useState, type ReactNode } from 'react';
import { Field } from '../../appearance/Field';
import { useDirectoryWords } from '../../words/directory-words';

/** As many characters as a password has at least; the rest is checked by the server. */
const SHORTEST = 10;

/** The two fields in which a password is chosen; null while it can't be taken. */
export function useNewPassword(wasSent: boolean): { fields: ReactNode; password: string | null } {
  const all = useDirectoryWords();
  const words = all.newPassword;
  const [first, setFirst] = useState('');
  const [again, setAgain] = useState('');
  const short = first.length < SHORTEST;
  const other = first !== again;
  return {
    password: short || other ? null : first,
    fields: (
      <>
        <Field
          label={words.label}
          hint={words.hint}
          error={wasSent && short ? words.short : null}
          type="password"
          autoComplete="new-password"
          value={first}
          onChange={(event) => setFirst(event.target.value)}
          required
          data-testid="new-password"
        />
        <Field
          label={words.again}
          hint={words.againHint}
          error={wasSent && other ? words.other : null}
          type="password"
          autoComplete="new-password"
          value={again}
          onChange={(event) => setAgain(event.target.value)}
          required
          data-testid="new-password-again"
        />
      </>
    ),
  };
}
