import { useId, type ReactNode } from 'react';
import { Dialog } from '../../appearance/Dialog';
import { DeviceSelect } from '../../device-check/DeviceSelect';
import { canChooseSpeaker } from '../../device-check/test-sound';
import { SpeakerTest } from '../../device-check/SpeakerTest';
import { useDeviceList } from '../../device-check/use-device-list';
import { isPublishCodec, PUBLISH_CODECS, setPreferences, usePreferences } from '../../preferences/preferences';
import { switchLanguage, useWords } from '../../words/words';
import { readSwitches } from '../session/address-switches';
import type { OwnMedia } from '../session/own-media';

interface Props {
  media: OwnMedia;
  onClose: () => void;
  onShowShortcuts: () => void;
}

const CODEC_NAMES = { h264: 'H.264', vp8: 'VP8', vp9: 'VP9', av1: 'AV1' } as const;

export function SettingsDialog({ media, onClose, onShowShortcuts }: Props) {
  const words = useWords();
  const preferences = usePreferences();
  const devices = useDeviceList(null);
  const codecId = useId();
  const fixedCodec = readSwitches(location.search).codec;
  const hasNames = [...devices.microphones, ...devices.cameras].some((device) => device.label !== '');

  return (
    <Dialog title={words.settings.title} onClose={onClose} testId="settings-dialog">
      <Group title={words.settings.devices}>
        {!hasNames && <p className="field-hint">{words.settings.noLabels}</p>}
        <DeviceSelect
          label={words.check.microphone}
          devices={devices.microphones}
          value={preferences.microphoneId}
          onChange={(id) => void media.switchDevice('microphone', id)}
          testId="settings-microphone"
        />
        <DeviceSelect
          label={words.check.camera}
          devices={devices.cameras}
          value={preferences.cameraId}
          onChange={(id) => void media.switchDevice('camera', id)}
          testId="settings-camera"
        />
        {canChooseSpeaker() ? (
          <DeviceSelect
            label={words.check.speaker}
            devices={devices.speakers}
            value={preferences.speakerId}
            onChange={(id) => void media.switchDevice('speaker', id)}
            testId="settings-speaker"
          />
        ) : (
          <p className="field-hint">{words.settings.speakerFixed}</p>
        )}
        <SpeakerTest speakerId={preferences.speakerId} />
      </Group>

      <Group title={words.settings.display}>
        <div className="choice" role="radiogroup" aria-label={words.settings.language}>
          <span className="choice-label">{words.settings.language}</span>
          {(['zh', 'en'] as const).map((language) => (
            <label key={language} className="radio" lang={language === 'zh' ? 'zh-CN' : 'en'}>
              <input
                type="radio"
                name="language"
                checked={preferences.language === language}
                onChange={() => void switchLanguage(language)}
                data-testid={`settings-language-${language}`}
              />
              {language === 'zh' ? words.settings.chinese : words.settings.english}
            </label>
          ))}
        </div>
        <Switch
          label={words.settings.largeType}
          hint={words.settings.largeTypeHint}
          checked={preferences.largeType}
          onChange={(largeType) => setPreferences({ largeType })}
          testId="settings-large-type"
        />
      </Group>

      <Group title={words.settings.keyboard}>
        <Switch
          label={words.settings.singleKeys}
          hint={words.settings.singleKeysHint}
          checked={preferences.singleKeyShortcuts}
          onChange={(singleKeyShortcuts) => setPreferences({ singleKeyShortcuts })}
          testId="settings-single-keys"
        />
        <button type="button" className="button small" onClick={onShowShortcuts} data-testid="settings-shortcuts">
          {words.settings.showShortcuts}
        </button>
      </Group>

      <Group title={words.settings.advanced}>
        <div className="device-select">
          <label htmlFor={codecId}>{words.settings.codec}</label>
          <select
            id={codecId}
            value={fixedCodec ?? preferences.codec}
            disabled={fixedCodec !== null}
            onChange={(event) => {
              const { value } = event.target;
              setPreferences({ codec: isPublishCodec(value) ? value : 'automatic' });
            }}
            data-testid="settings-codec"
          >
            <option value="automatic">{words.settings.codecAutomatic}</option>
            {PUBLISH_CODECS.map((codec) => (
              <option key={codec} value={codec}>
                {CODEC_NAMES[codec]}
              </option>
            ))}
          </select>
          <p className="field-hint">{fixedCodec === null ? words.settings.codecHint : words.settings.codecFixed}</p>
        </div>
      </Group>
      <button type="button" className="button primary wide" onClick={onClose} data-testid="settings-done">
        {words.settings.done}
      </button>
    </Dialog>
  );
}

function Group({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section className="settings-group">
      <h3>{title}</h3>
      {children}
    </section>
  );
}

interface SwitchProps {
  label: string;
  hint: string;
  checked: boolean;
  onChange: (checked: boolean) => void;
  testId: string;
}

function Switch({ label, hint, checked, onChange, testId }: SwitchProps) {
  return (
    <label className="switch">
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.target.checked)} data-testid={testId} />
      <span>
        {label}
        <small>{hint}</small>
      </span>
    </label>
  );
}
