import { useId, type InputHTMLAttributes, type Ref } from 'react';

interface Props extends Omit<InputHTMLAttributes<HTMLInputElement>, 'id'> {
  label: string;
  hint: string;
  /** What is wrong with the value, in words; null when nothing is. */
  error: string | null;
  inputRef?: Ref<HTMLInputElement>;
}

/** A labelled text field whose hint and error are tied to it for every reader. */
export function Field({ label, hint, error, inputRef, ...input }: Props) {
  const id = useId();
  return (
    <div className={error === null ? 'field' : 'field field-wrong'}>
      <label htmlFor={id}>{label}</label>
      <input
        {...input}
        ref={inputRef}
        id={id}
        aria-describedby={error === null ? `${id}-hint` : `${id}-error ${id}-hint`}
        aria-invalid={error !== null}
      />
      {error !== null && (
        <p className="field-error" id={`${id}-error`}>
          {error}
        </p>
      )}
      <p className="field-hint" id={`${id}-hint`}>
        {hint}
      </p>
    </div>
  );
}
