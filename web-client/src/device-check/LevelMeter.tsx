import { useEffect, useRef, useState } from 'react';
import { useWords } from '../words/words';

const BARS = 12;
/** Speech at arm's length reaches this share of the scale; a quiet room does not. */
const HEARD_LEVEL = 0.2;
const FRAME_MS = 60;

/** Shows that the microphone hears something. Draws past React, sixteen times a second. */
export function LevelMeter({ track }: { track: MediaStreamTrack }) {
  const words = useWords();
  const bars = useRef<HTMLDivElement>(null);
  const [heard, setHeard] = useState(false);

  useEffect(() => {
    const context = new AudioContext();
    const source = context.createMediaStreamSource(new MediaStream([track]));
    const analyser = context.createAnalyser();
    analyser.fftSize = 512;
    source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let shown = 0;
    const timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      const decibel = 10 * Math.log10(sum / samples.length + 1e-10);
      // −60 dBFS is silence, −12 dBFS is loud speech.
      const level = Math.min(1, Math.max(0, (decibel + 60) / 48));
      shown = Math.max(level, shown * 0.85);
      if (shown >= HEARD_LEVEL) setHeard(true);
      const lit = Math.round(shown * BARS);
      const children = bars.current?.children ?? [];
      for (let index = 0; index < children.length; index++) children[index]?.classList.toggle('level-lit', index < lit);
    }, FRAME_MS);
    return () => {
      clearInterval(timer);
      source.disconnect();
      void context.close();
    };
  }, [track]);

  return (
    <div className="level" data-testid="check-level" data-heard={heard}>
      <div className="level-bars" ref={bars} aria-hidden="true">
        {Array.from({ length: BARS }, (_, index) => (
          <span key={index} />
        ))}
      </div>
      <p role="status">{heard ? `✓ ${words.check.heardYou}` : words.check.saySomething}</p>
    </div>
  );
}
