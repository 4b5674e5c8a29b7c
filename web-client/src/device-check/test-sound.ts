/** Three rising tones on the chosen speaker, made here so that no sound file is needed. */
const TONES_HZ = [523.25, 659.25, 783.99];
const TONE_SECONDS = 0.35;
const VOLUME = 0.25;

export async function playTestSound(speakerId: string): Promise<void> {
  const context = new AudioContext();
  try {
    await context.resume();
    const output = context.createMediaStreamDestination();
    const element = new Audio();
    element.srcObject = output.stream;
    if (speakerId !== '' && canChooseSpeaker()) await element.setSinkId(speakerId).catch(() => undefined);
    await element.play();
    const start = context.currentTime + 0.1;
    TONES_HZ.forEach((frequency, index) => {
      const oscillator = context.createOscillator();
      const gain = context.createGain();
      const from = start + index * TONE_SECONDS;
      oscillator.frequency.value = frequency;
      gain.gain.setValueAtTime(0, from);
      gain.gain.linearRampToValueAtTime(VOLUME, from + 0.03);
      gain.gain.linearRampToValueAtTime(0, from + TONE_SECONDS);
      oscillator.connect(gain).connect(output);
      oscillator.start(from);
      oscillator.stop(from + TONE_SECONDS);
    });
    await new Promise((resolve) => setTimeout(resolve, (TONES_HZ.length * TONE_SECONDS + 0.4) * 1000));
    element.srcObject = null;
  } finally {
    await context.close();
  }
}

export function canChooseSpeaker(): boolean {
  return typeof (HTMLMediaElement.prototype as Partial<HTMLMediaElement>).setSinkId === 'function';
}
