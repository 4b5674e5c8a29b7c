/** See and hear oneself before going in. Microphone first, then camera, each from a press; all optional. */
import { useEffect, useRef, useState } from 'react';
import type { Meeting } from '../api/meetings';
import { prefetchMeetingPage } from '../app/load-pages';
import { useDocumentTitle } from '../app/document-title';
import { Icon } from '../appearance/Icon';
import { PageFrame } from '../appearance/PageFrame';
import { Steps } from '../appearance/Steps';
import { formatMeetingCode } from '../join/meeting-code';
import { setPreferences, usePreferences } from '../preferences/preferences';
import { useWords } from '../words/words';
import { CaptureHelpBox } from './CaptureHelpBox';
import './device-check.css';
import type { DeviceChoice } from './device-choice';
import { DeviceSelect } from './DeviceSelect';
import { LevelMeter } from './LevelMeter';
import { Preview } from './Preview';
import { SpeakerTest } from './SpeakerTest';
import { canChooseSpeaker } from './test-sound';
import { useCapture, type Capture } from './use-capture';
import { useDeviceList } from './use-device-list';

interface Props {
  meeting: Meeting;
  onChangeName: () => void;
  onReady: (choice: DeviceChoice) => void;
}

/** What the page asks for now; the primary button follows from it. */
type Question = 'microphone' | 'camera' | 'ready';

function questionFor(microphone: Capture, camera: Capture): Question {
  const open = (capture: Capture): boolean => capture.state.status === 'open' || capture.state.status === 'declined';
  if (!open(microphone)) return 'microphone';
  return open(camera) ? 'ready' : 'camera';
}

export function DeviceCheckPage({ meeting, onChangeName, onReady }: Props) {
  const words = useWords();
  useDocumentTitle(words.check.documentTitle);
  const preferences = usePreferences();
  const { microphoneId, cameraId, speakerId, enterMuted, name } = preferences;
  const microphone = useCapture('microphone', microphoneId, true);
  const microphoneSettled = microphone.state.status === 'open' || microphone.state.status === 'declined';
  const camera = useCapture('camera', cameraId, microphoneSettled);
  const devices = useDeviceList(`${microphone.state.status} ${camera.state.status}`);
  const heading = useRef<HTMLHeadingElement>(null);
  const [entering, setEntering] = useState(false);
  const question = questionFor(microphone, camera);

  useEffect(() => {
    heading.current?.focus();
    // Let the page come first on a thin line, then fetch the meeting behind it.
    const timer = setTimeout(prefetchMeetingPage, 800);
    return () => clearTimeout(timer);
  }, []);

  function enter(listenOnly: boolean): void {
    if (entering) return;
    setEntering(true);
    if (listenOnly) {
      microphone.decline();
      camera.decline();
      onReady({ microphone: null, camera: null, enterMuted: true });
      return;
    }
    onReady({ microphone: microphone.release(), camera: camera.release(), enterMuted });
  }

  const cameraTrack = camera.state.status === 'open' ? camera.state.track : null;
  const hasFault = microphone.state.status === 'failed' || camera.state.status === 'failed';
  const asking = microphone.state.status === 'asking' || camera.state.status === 'asking';

  return (
    <PageFrame>
      <section className={hasFault ? 'card wide-card check check-fault' : 'card wide-card check'}>
        <Steps now={2} />
        <div className="check-title">
          <h1 ref={heading} tabIndex={-1}>
            {meeting.name}
          </h1>
          <p className="secondary">
            {words.check.meetingCode} <span className="numeric">{formatMeetingCode(meeting.code)}</span>
            <span className="check-name">
              {words.check.you} <strong>{name}</strong>
              <button type="button" className="text-button" onClick={onChangeName} data-testid="check-change-name">
                {words.check.changeName}
              </button>
            </span>
          </p>
        </div>

        <div className="check-columns">
          <div className="check-left">
            <Preview track={cameraTrack} starting={camera.state.status === 'asking'} />
            {microphone.state.status === 'open' && <LevelMeter track={microphone.state.track} />}
            {microphone.state.status === 'failed' && <CaptureHelpBox fault={microphone.state.fault} device="microphone" />}
            {camera.state.status === 'failed' && <CaptureHelpBox fault={camera.state.fault} device="camera" />}
          </div>

          <div className="check-right">
            <div className="check-question">
              <p className="lead" role="status">
                {asking
                  ? words.check.asking
                  : question === 'microphone'
                    ? words.check.microphoneIntro
                    : question === 'camera'
                      ? words.check.cameraIntro
                      : words.check.ready}
              </p>
              <div className="stacked-buttons">
                {question === 'microphone' && (
                  <>
                    <PrimaryOpen kind="microphone" capture={microphone} deviceId={microphoneId} />
                    {microphone.state.status === 'failed' && (
                      <button type="button" className="button" onClick={microphone.decline} data-testid="check-no-microphone">
                        {words.check.withoutMicrophone}
                      </button>
                    )}
                  </>
                )}
                {question === 'camera' && (
                  <>
                    <PrimaryOpen kind="camera" capture={camera} deviceId={cameraId} />
                    <button type="button" className="button" onClick={camera.decline} data-testid="check-no-camera">
                      {microphone.state.status === 'open' ? words.check.audioOnly : words.check.cameraOff}
                    </button>
                  </>
                )}
                {question === 'ready' && (
                  <button type="button" className="button primary" onClick={() => enter(false)} data-testid="check-continue">
                    {words.check.join}
                  </button>
                )}
                <button type="button" className="button quiet" onClick={() => enter(true)} data-testid="check-listen-only">
                  {words.check.listenOnly}
                </button>
              </div>
            </div>

            {microphone.state.status === 'open' && (
              <label className="switch">
                <input
                  type="checkbox"
                  checked={enterMuted}
                  onChange={(event) => setPreferences({ enterMuted: event.target.checked })}
                  data-testid="check-muted"
                />
                <span>
                  {words.check.enterMuted}
                  <small>{words.check.enterMutedHint}</small>
                </span>
              </label>
            )}

            <div className="check-devices">
              {microphoneSettled && (
                <DeviceRow
                  capture={microphone}
                  stopLabel={words.check.stopMicrophone}
                  openLabel={words.check.openMicrophone}
                  deviceId={microphoneId}
                >
                  <DeviceSelect
                    label={words.check.microphone}
                    devices={devices.microphones}
                    value={microphoneId}
                    onChange={(id) => {
                      setPreferences({ microphoneId: id });
                      void microphone.open(id);
                    }}
                    testId="check-microphone-select"
                  />
                </DeviceRow>
              )}
              {question === 'ready' && (
                <DeviceRow
                  capture={camera}
                  stopLabel={words.check.stopCamera}
                  openLabel={words.check.openCamera}
                  deviceId={cameraId}
                >
                  <DeviceSelect
                    label={words.check.camera}
                    devices={devices.cameras}
                    value={cameraId}
                    onChange={(id) => {
                      setPreferences({ cameraId: id });
                      void camera.open(id);
                    }}
                    testId="check-camera-select"
                  />
                </DeviceRow>
              )}
              {canChooseSpeaker() && devices.speakers.length > 1 && (
                <DeviceSelect
                  label={words.check.speaker}
                  devices={devices.speakers}
                  value={speakerId}
                  onChange={(id) => setPreferences({ speakerId: id })}
                  testId="check-speaker-select"
                />
              )}
              <SpeakerTest speakerId={speakerId} />
            </div>
          </div>
        </div>
      </section>
    </PageFrame>
  );
}

function PrimaryOpen({ kind, capture, deviceId }: { kind: 'microphone' | 'camera'; capture: Capture; deviceId: string }) {
  const words = useWords();
  const label = kind === 'microphone' ? words.check.openMicrophone : words.check.openCamera;
  const { status } = capture.state;
  return (
    <button
      type="button"
      className="button primary"
      aria-disabled={status === 'asking'}
      onClick={() => {
        if (status !== 'asking') void capture.open(deviceId);
      }}
      data-testid={kind === 'microphone' ? 'check-mic' : 'check-camera'}
    >
      <Icon name={kind} />
      {status === 'failed' ? words.retry : label}
    </button>
  );
}

interface DeviceRowProps {
  capture: Capture;
  stopLabel: string;
  openLabel: string;
  deviceId: string;
  children: React.ReactNode;
}

function DeviceRow({ capture, stopLabel, openLabel, deviceId, children }: DeviceRowProps) {
  const words = useWords();
  const isOpen = capture.state.status === 'open';
  return (
    <div className="device-row">
      {isOpen && children}
      <button type="button" className="text-button" onClick={() => (isOpen ? capture.decline() : void capture.open(deviceId))}>
        {isOpen ? stopLabel : openLabel}
      </button>
      {capture.state.status === 'open' && capture.state.fellBack && <p className="field-hint">{words.check.fellBack}</p>}
    </div>
  );
}
