/** The way through one meeting: opening → name → device check → meeting → left. */
import { lazy, Suspense, useCallback, useEffect, useState } from 'react';
import { ApiError, getMeeting, type Meeting } from '../api/meetings';
import { PageFrame } from '../appearance/PageFrame';
import { Waiting } from '../appearance/Waiting';
import { stopTracks, type DeviceChoice } from '../device-check/device-choice';
import { isValidName } from '../join/participant-name';
import { NamePage } from '../join/NamePage';
import { LeftPage } from '../left/LeftPage';
import { rememberDeparture, type Departure, type DepartureReason } from '../left/departure';
import { readSeat, forgetMeeting, type SeatMemory } from '../meeting/session/seat-memory';
import { getPreferences, setPreferences } from '../preferences/preferences';
import { useWords } from '../words/words';
import { loadDeviceCheckPage, loadMeetingPage } from './load-pages';

const MeetingPage = lazy(loadMeetingPage);
const DeviceCheckPage = lazy(loadDeviceCheckPage);

type Step =
  | { at: 'opening' }
  | { at: 'name'; meeting: Meeting }
  | { at: 'check'; meeting: Meeting }
  | { at: 'meeting'; meeting: Meeting; choice: DeviceChoice | null; memory: SeatMemory | null }
  | { at: 'left'; departure: Departure };

/** A tab that was in the meeting goes straight back in after a reload: same seat, no second device check. */
function firstStep(code: string): Step {
  const memory = readSeat(code);
  if (memory?.active === true && isValidName(memory.name)) {
    return { at: 'meeting', meeting: { code, name: memory.meetingName, endsAt: null }, choice: null, memory };
  }
  return { at: 'opening' };
}

export function MeetingFlow({ code }: { code: string }) {
  const [step, setStep] = useState<Step>(() => firstStep(code));
  const [attempt, setAttempt] = useState(0);

  const leave = useCallback(
    (reason: DepartureReason, attendedMs: number) => {
      forgetMeeting(code, reason === 'removed' || reason === 'ended');
      const departure: Departure = { code, reason, at: Date.now(), attendedMs };
      rememberDeparture(departure);
      setStep({ at: 'left', departure });
    },
    [code],
  );

  const opening = step.at === 'opening';
  useEffect(() => {
    if (!opening) return;
    const abort = new AbortController();
    getMeeting(code, abort.signal).then(
      (meeting) => {
        if (abort.signal.aborted) return;
        setStep(isValidName(getPreferences().name) ? { at: 'check', meeting } : { at: 'name', meeting });
      },
      (error: unknown) => {
        if (!abort.signal.aborted) leave(departureFor(error), 0);
      },
    );
    return () => abort.abort();
  }, [code, opening, attempt, leave]);

  const begin = useCallback(
    (choice: DeviceChoice) => {
      setStep((now) =>
        now.at === 'check' ? { at: 'meeting', meeting: now.meeting, choice, memory: readSeat(code) } : now,
      );
    },
    [code],
  );

  switch (step.at) {
    case 'opening':
      return <OpeningPage />;
    case 'name':
      return (
        <NamePage
          meeting={step.meeting}
          onName={(name) => {
            setPreferences({ name });
            setStep({ at: 'check', meeting: step.meeting });
          }}
        />
      );
    case 'check':
      return (
        <Suspense fallback={<OpeningPage />}>
          <DeviceCheckPage
            meeting={step.meeting}
            onChangeName={() => setStep({ at: 'name', meeting: step.meeting })}
            onReady={begin}
          />
        </Suspense>
      );
    case 'meeting':
      return (
        <Suspense fallback={<OpeningPage />}>
          <MeetingPage
            meeting={step.meeting}
            choice={step.choice}
            memory={step.memory}
            onLeft={(reason, attendedMs) => {
              if (step.choice !== null) stopTracks(step.choice);
              leave(reason, attendedMs);
            }}
          />
        </Suspense>
      );
    case 'left':
      return (
        <LeftPage
          departure={step.departure}
          onRejoin={() => {
            setStep({ at: 'opening' });
            setAttempt((n) => n + 1);
          }}
        />
      );
  }
}

function OpeningPage() {
  const words = useWords();
  return (
    <PageFrame>
      <h1 className="visually-hidden">{words.loading}</h1>
      <Waiting text={words.loading} longText={words.loadingLong} />
    </PageFrame>
  );
}

function departureFor(error: unknown): DepartureReason {
  if (!(error instanceof ApiError)) return 'unreachable';
  switch (error.code) {
    case 'meeting_not_found':
      return 'notFound';
    case 'meeting_ended':
      return 'ended';
    case 'server_full':
    case 'overloaded':
      return 'full';
    case 'invalid_name':
    case 'too_many_attempts':
    case 'other':
      return 'refused';
    case 'draining':
    case 'unreachable':
      return 'unreachable';
  }
}
