/** Making, renaming and moving an organisation. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory, makeOnce, seen } from '../../api/directory';
import { Choice } from '../../appearance/Choice';
import { Dialog } from '../../appearance/Dialog';
import { Field } from '../../appearance/Field';
import { useDirectoryWords } from '../../words/directory-words';
import { FormEnd } from '../FormEnd';
import { useAct } from '../use-answer';
import type { Organisation } from './lineage';
import { OrganisationSearch } from './OrganisationSearch';

const KINDS = ['centre', 'department', 'committee', 'grid'] as const;
const LEVELS = ['province', 'city', 'county', 'township', 'village'] as const;
type Kind = Organisation['kind'];
type Level = NonNullable<Organisation['level']>;

interface Props {
  onClose: () => void;
  onDone: (organisation: Organisation) => void;
}

export function CreateDialog({ parent, onClose, onDone }: Props & { parent: Organisation }) {
  const all = useDirectoryWords();
  const words = all.organisations;
  // A centre stands under a centre of a higher level, and nothing under a grid.
  const levels = parent.kind === 'centre' ? LEVELS.slice(LEVELS.indexOf(parent.level ?? 'village') + 1) : [];
  const kinds = KINDS.filter((kind) => kind !== 'centre' || levels.length > 0);
  const [kind, setKind] = useState<Kind>(kinds[0] ?? 'department');
  const [level, setLevel] = useState<Level>(levels[0] ?? 'village');
  const [name, setName] = useState('');
  const [code, setCode] = useState('');
  const [wasSent, setSent] = useState(false);
  const [once] = useState(makeOnce);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (name.trim() === '') return;
    const body = {
      kind,
      level: kind === 'centre' ? level : null,
      name: name.trim(),
      code: code.trim() === '' ? null : code.trim(),
      parent: parent.id,
    };
    void act.run(async () =>
      onDone(await answered(directory.POST('/api/organisations', { params: { header: once(body) }, body }))),
    );
  }
  return (
    <Dialog title={words.createUnder(parent.name)} onClose={onClose} testId="create-dialog">
      <form noValidate onSubmit={submit}>
        <Choice
          label={words.kind}
          options={kinds.map((one) => [one, words.kinds[one]] as const)}
          value={kind}
          onChange={(value) => setKind(value as Kind)}
          data-testid="create-kind"
        />
        {kind === 'centre' && (
          <Choice
            label={words.level}
            options={levels.map((one) => [one, words.levels[one]] as const)}
            value={level}
            onChange={(value) => setLevel(value as Level)}
            data-testid="create-level"
          />
        )}
        <Field
          label={words.name}
          hint={words.nameHint}
          error={wasSent && name.trim() === '' ? all.missing : null}
          value={name}
          onChange={(event) => setName(event.target.value)}
          required
          data-testid="create-name"
        />
        <Field
          label={words.codeOptional}
          hint={words.codeHint}
          error={null}
          value={code}
          inputMode="numeric"
          onChange={(event) => setCode(event.target.value)}
          data-testid="create-code"
        />
        <FormEnd act={act} verb={words.createSubmit} testId="create-submit" />
      </form>
    </Dialog>
  );
}

export function RenameDialog({ organisation, onClose, onDone }: Props & { organisation: Organisation }) {
  const all = useDirectoryWords();
  const words = all.organisations;
  const [name, setName] = useState(organisation.name);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    if (name.trim() === '') return;
    const params = { path: { id: organisation.id }, header: seen(organisation) };
    const body = { change: 'rename' as const, name: name.trim() };
    void act.run(async () => onDone(await answered(directory.PATCH('/api/organisations/{id}', { params, body }))));
  }
  return (
    <Dialog title={words.renameTitle} onClose={onClose} testId="rename-dialog">
      <form noValidate onSubmit={submit}>
        <Field
          label={words.newName}
          hint={words.nameHint}
          error={name.trim() === '' ? all.missing : null}
          value={name}
          onChange={(event) => setName(event.target.value)}
          required
          data-testid="rename-name"
        />
        <FormEnd act={act} verb={words.rename} testId="rename-submit" />
      </form>
    </Dialog>
  );
}

export function MoveDialog({ organisation, onClose, onDone }: Props & { organisation: Organisation }) {
  const words = useDirectoryWords().organisations;
  const [to, setTo] = useState<Organisation | null>(null);
  const [wasSent, setSent] = useState(false);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (to === null) return;
    const params = { path: { id: organisation.id }, header: seen(organisation) };
    const body = { change: 'move' as const, parent: to.id };
    void act.run(async () => onDone(await answered(directory.PATCH('/api/organisations/{id}', { params, body }))));
  }
  return (
    <Dialog title={words.moveTitle(organisation.name)} onClose={onClose} testId="move-dialog">
      <form noValidate onSubmit={submit}>
        <p>{words.moveText}</p>
        <OrganisationSearch label={words.newParent} chosen={to?.id ?? null} onChoose={setTo} testId="move-search" />
        {to !== null && (
          <p>
            {words.movesUnder} <strong>{to.name}</strong>
          </p>
        )}
        {wasSent && to === null && (
          <p className="form-error" role="alert">
            {words.chooseParent}
          </p>
        )}
        <FormEnd act={act} verb={words.move} testId="move-submit" />
      </form>
    </Dialog>
  );
}
