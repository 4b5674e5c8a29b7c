import { useState } from 'react';
import { Icon } from '../appearance/Icon';
import { useWords } from '../words/words';
import { playTestSound } from './test-sound';

/** Plays three tones and asks. Nothing depends on the answer; it is there to find a mute speaker early. */
export function SpeakerTest({ speakerId }: { speakerId: string }) {
  const words = useWords();
  const [phase, setPhase] = useState<'idle' | 'playing' | 'asking' | 'heard' | 'silent'>('idle');

  async function play(): Promise<void> {
    setPhase('playing');
    await playTestSound(speakerId).catch(() => undefined);
    setPhase('asking');
  }

  return (
    <div className="speaker-test">
      <button
        type="button"
        className="button"
        aria-disabled={phase === 'playing'}
        onClick={() => {
          if (phase !== 'playing') void play();
        }}
        data-testid="check-speaker"
      >
        <Icon name="sound" />
        {phase === 'playing' ? words.check.testingSpeaker : words.check.testSpeaker}
      </button>
      {phase === 'asking' && (
        <div className="speaker-answer" role="group" aria-label={words.check.heardQuestion}>
          <span>{words.check.heardQuestion}</span>
          <button type="button" className="button small" onClick={() => setPhase('heard')} data-testid="check-heard">
            {words.check.heardYes}
          </button>
          <button type="button" className="button small" onClick={() => setPhase('silent')} data-testid="check-not-heard">
            {words.check.heardNo}
          </button>
        </div>
      )}
      <p className="field-hint" role="status">
        {phase === 'heard' && `✓ ${words.check.heardYes}`}
        {phase === 'silent' && words.check.heardNoHelp}
      </p>
    </div>
  );
}
