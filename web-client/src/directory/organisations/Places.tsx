/** The halls and rooms of an organisation, and the keys with which halls sign in. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory, makeOnce, seen, type Schemas } from '../../api/directory';
import { Choice } from '../../appearance/Choice';
import { Dialog } from '../../appearance/Dialog';
import { Field } from '../../appearance/Field';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ConfirmDialog } from '../ConfirmDialog';
import { CopyText } from '../CopyText';
import { moment } from '../moment';
import { FormEnd } from '../FormEnd';
import { ProblemBox } from '../ProblemBox';
import { useAct, useAnswer } from '../use-answer';
import type { Organisation } from './lineage';
import type { Rights } from './OrganisationDetails';

type Place = Schemas['Place'];
type Use = Schemas['RoomUse'];

const USES: readonly Use[] = ['reception', 'mediation', 'monitoring', 'counselling', 'social_organisations'];

type Open = { act: 'create' } | { act: 'keys' | 'close'; place: Place };

export function Places({ organisation, may }: { organisation: Organisation; may: Rights }) {
  const { opening, openingLong } = useWords();
  const all = useDirectoryWords();
  const words = all.halls;
  const { id } = organisation;
  const [open, setOpen] = useState<Open | null>(null);
  const places = useAnswer(`places ${id}`, () =>
    answered(directory.GET('/api/organisations/{id}/places', { params: { path: { id } } })),
  );
  const isActive = organisation.state === 'active';
  const mayManage = isActive && may('manage_organisations') === 'yes';
  const mayIssue = isActive && may('issue_hall_keys') === 'yes';
  const about = (place: Place): string =>
    place.kind === 'hall' ? words.hall(place.screens) : place.uses.map((use) => words.uses[use]).join(all.comma);
  function changed(): void {
    setOpen(null);
    places.reload();
  }
  return (
    <>
      {mayManage && (
        <div className="part-buttons">
          <button type="button" className="button primary small" data-testid="create-place" onClick={() => setOpen({ act: 'create' })}>
            {words.create}
          </button>
        </div>
      )}
      {places.problem !== null && <ProblemBox problem={places.problem} onRetry={places.reload} />}
      {places.value === null ? (
        places.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : places.value.length === 0 ? (
        <p className="empty">{words.none}</p>
      ) : (
        <ul role="list" className="rows">
          {places.value.map((place) => (
            <li key={place.id} data-testid="place">
              <span className="row-words">
                <strong>{place.name}</strong>
                <span className="secondary">
                  {about(place)}
                  {place.seats == null ? '' : `${all.comma}${words.seats(place.seats)}`}
                </span>
              </span>
              <span className="row-buttons">
                {place.kind === 'hall' && mayIssue && (
                  <button
                    type="button"
                    className="button small"
                    aria-label={`${words.keys} ${place.name}`}
                    data-testid="keys"
                    onClick={() => setOpen({ act: 'keys', place })}
                  >
                    {words.keys}
                  </button>
                )}
                {mayManage && (
                  <button
                    type="button"
                    className="button small"
                    aria-label={`${words.close} ${place.name}`}
                    onClick={() => setOpen({ act: 'close', place })}
                  >
                    {words.close}
                  </button>
                )}
              </span>
            </li>
          ))}
        </ul>
      )}
      {open?.act === 'create' && <CreatePlace organisation={organisation} onClose={() => setOpen(null)} onDone={changed} />}
      {open?.act === 'keys' && <Keys place={open.place} onClose={() => setOpen(null)} />}
      {open?.act === 'close' && (
        <ConfirmDialog
          title={words.closeTitle(open.place.name)}
          text={words.closeText}
          verb={words.close}
          keep={words.keep}
          onClose={() => setOpen(null)}
          act={async () => {
            const params = { path: { id: open.place.id }, header: seen(open.place) };
            await answered(directory.POST('/api/places/{id}/close', { params }));
            changed();
          }}
        />
      )}
    </>
  );
}

function CreatePlace({ organisation, onClose, onDone }: { organisation: Organisation; onClose: () => void; onDone: () => void }) {
  const all = useDirectoryWords();
  const words = all.halls;
  const [kind, setKind] = useState<'hall' | 'room'>('hall');
  const [name, setName] = useState('');
  const [screens, setScreens] = useState('1');
  const [uses, setUses] = useState<readonly Use[]>([]);
  const [wasSent, setSent] = useState(false);
  const [once] = useState(makeOnce);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (name.trim() === '' || (kind === 'room' && uses.length === 0)) return;
    const body =
      kind === 'hall'
        ? { name: name.trim(), kind: 'hall' as const, screens: Number(screens) }
        : { name: name.trim(), kind: 'room' as const, uses: [...uses] };
    const params = { path: { id: organisation.id }, header: once(body) };
    void act.run(async () => {
      await answered(directory.POST('/api/organisations/{id}/places', { params, body }));
      onDone();
    });
  }
  return (
    <Dialog title={words.createTitle(organisation.name)} onClose={onClose} testId="place-dialog">
      <form noValidate onSubmit={submit}>
        <Choice
          label={words.kind}
          options={[
            ['hall', words.kinds.hall],
            ['room', words.kinds.room],
          ]}
          value={kind}
          onChange={(value) => setKind(value === 'room' ? 'room' : 'hall')}
          data-testid="place-kind"
        />
        <Field
          label={words.name}
          hint={all.organisations.nameHint}
          error={wasSent && name.trim() === '' ? all.missing : null}
          value={name}
          onChange={(event) => setName(event.target.value)}
          required
          data-testid="place-name"
        />
        {kind === 'hall' ? (
          <Choice
            label={words.screens}
            options={[
              ['1', words.hall(1)],
              ['2', words.hall(2)],
            ]}
            value={screens}
            onChange={setScreens}
          />
        ) : (
          <fieldset className="group">
            <legend>{words.usedFor}</legend>
            {wasSent && uses.length === 0 && <p className="field-error">{words.noUse}</p>}
            {USES.map((use) => (
              <label key={use} className="switch">
                <input
                  type="checkbox"
                  checked={uses.includes(use)}
                  onChange={(event) => setUses(event.target.checked ? [...uses, use] : uses.filter((other) => other !== use))}
                />
                <span>{words.uses[use]}</span>
              </label>
            ))}
          </fieldset>
        )}
        <FormEnd act={act} verb={words.createSubmit} testId="place-submit" />
      </form>
    </Dialog>
  );
}

function Keys({ place, onClose }: { place: Place; onClose: () => void }) {
  const { opening, openingLong } = useWords();
  const all = useDirectoryWords();
  const words = all.halls;
  const path = { id: place.id };
  const keys = useAnswer(`keys ${place.id}`, () => answered(directory.GET('/api/places/{id}/keys', { params: { path } })));
  const [name, setName] = useState('');
  const [wasSent, setSent] = useState(false);
  const [issued, setIssued] = useState<Schemas['IssuedKey'] | null>(null);
  const [once] = useState(makeOnce);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    const body = { name: name.trim() };
    if (body.name === '') return;
    void act.run(async () => {
      const call = directory.POST('/api/places/{id}/keys', { params: { path, header: once(body) }, body });
      setIssued(await answered(call));
      setName('');
      setSent(false);
      keys.reload();
    });
  }
  return (
    <Dialog title={words.keysTitle(place.name)} onClose={onClose} testId="keys-dialog">
      <p className="lead">{words.keysText}</p>
      {issued !== null && (
        <div className="note">
          <p>{words.issued(issued.name)}</p>
          <CopyText label={issued.name} text={issued.key} testId="device-key" />
        </div>
      )}
      {keys.problem !== null && <ProblemBox problem={keys.problem} onRetry={keys.reload} />}
      {keys.value === null ? (
        keys.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : (
        <ul role="list" className="rows">
          {keys.value.length === 0 && <li className="empty">{words.noKeys}</li>}
          {keys.value.map((key) => (
            <li key={key.id} data-testid="key">
              <span className="row-words">
                <strong>{key.name}</strong>
                <span className="secondary numeric">
                  {key.revoked_at != null
                    ? words.revokedAt(moment(key.revoked_at))
                    : key.last_used_at != null
                      ? words.usedAt(moment(key.last_used_at))
                      : words.notUsed}
                </span>
              </span>
              {key.revoked_at == null && (
                <button
                  type="button"
                  className="button small"
                  aria-label={`${words.revoke} ${key.name}`}
                  aria-disabled={act.isBusy}
                  data-testid="revoke-key"
                  onClick={() =>
                    void act.run(async () => {
                      const params = { path: { id: place.id, key: key.id } };
                      await answered(directory.DELETE('/api/places/{id}/keys/{key}', { params }));
                      keys.reload();
                    })
                  }
                >
                  {words.revoke}
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      <form noValidate onSubmit={submit}>
        <Field
          label={words.keyName}
          hint={words.keyNameHint}
          error={wasSent && name.trim() === '' ? all.missing : null}
          value={name}
          onChange={(event) => setName(event.target.value)}
          required
          data-testid="key-name"
        />
        <button type="submit" className="button primary" aria-disabled={act.isBusy} data-testid="issue-key">
          {words.issue}
        </button>
      </form>
    </Dialog>
  );
}
