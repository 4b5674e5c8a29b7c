import { useEffect, useState } from 'react';
import { Field } from '../../appearance/Field';
import { useDirectoryWords } from '../../words/directory-words';
import { ProblemBox } from '../ProblemBox';
import { useAnswer } from '../use-answer';
import { search, type Organisation } from './lineage';

/** How long after the last letter a search begins. */
const PAUSE_MS = 250;

interface Props {
  label: string;
  /** Which of the results is chosen. */
  chosen: string | null;
  onChoose: (organisation: Organisation) => void;
  /** Whether there is anything to be searched for. */
  onSearching?: (isSearching: boolean) => void;
  testId: string;
}

/** Organisations by name, first letters of its pinyin, or code. */
export function OrganisationSearch({ label, chosen, onChoose, onSearching, testId }: Props) {
  const all = useDirectoryWords();
  const words = all.organisations;
  const [typed, setTyped] = useState('');
  const [text, setText] = useState('');
  useEffect(() => {
    const timer = setTimeout(() => setText(typed.trim()), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  const found = useAnswer(text === '' ? null : text, () => search(text));
  const organisations = text === '' ? null : found.value?.organisations;
  return (
    <div className="search">
      <Field
        label={label}
        hint={words.searchHint}
        error={null}
        type="search"
        value={typed}
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => {
          setTyped(event.target.value);
          onSearching?.(event.target.value.trim() !== '');
        }}
        data-testid={testId}
      />
      <div role="status">
        {organisations != null && organisations.length === 0 && <p className="empty">{words.notFound(text)}</p>}
        {organisations != null && organisations.length > 0 && (
          <p className="visually-hidden">{words.found(organisations.length)}</p>
        )}
      </div>
      {found.problem !== null && <ProblemBox problem={found.problem} onRetry={found.reload} />}
      {organisations != null && organisations.length > 0 && (
        <ul role="list" className="results">
          {organisations.map((organisation) => (
            <li key={organisation.id}>
              <button
                type="button"
                className="result"
                aria-pressed={organisation.id === chosen}
                data-testid="result"
                onClick={() => onChoose(organisation)}
              >
                <span>{organisation.name}</span>
                <span className="secondary numeric">
                  {organisation.level == null ? words.kinds[organisation.kind] : words.levels[organisation.level]}{' '}
                  {organisation.code}
                </span>
              </button>
            </li>
          ))}
        </ul>
      )}
      {organisations != null && found.value?.next != null && <p className="secondary">{words.moreResults}</p>}
    </div>
  );
}
