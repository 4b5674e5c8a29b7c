// Fake cameras and microphones that can be told apart at the receiver.
//
// A camera shows eight big blocks: the upper row is a number of four bits (white is one), the lower row its
// complement, so that a grey, black or torn picture is never taken for a number. Between the rows runs a moving
// pattern, so that encoders have something to do. A microphone beeps at a frequency of its own; it beeps rather
// than hums because noise suppression takes a steady tone for noise.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folder = join(tmpdir(), 'terrace-fake-media');

/** The tone of participant `number`, in hertz: far enough apart for an FFT of a few hertz per bin. */
export const toneOf = (number) => 440 + 220 * number;

/** People notice when a picture is further than this from its sound (ITU-R BT.1359), in milliseconds. */
export const NOTICED = 45;

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Makes `file` once, by way of a temporary name, so that an interrupted run leaves nothing half made. */
function make(file, ffmpegArguments) {
  if (existsSync(file)) return file;
  mkdirSync(folder, { recursive: true });
  const dot = file.lastIndexOf('.');
  const unfinished = `${file.slice(0, dot)}.${process.pid}${file.slice(dot)}`;
  execFileSync('ffmpeg', ['-v', 'error', '-y', ...ffmpegArguments, unfinished]);
  renameSync(unfinished, file);
  return file;
}

/** A camera file for participant `number` (0 to 15). Motion JPEG: Chromium loops it, and it stays small. */
export function cameraFile(number, { width = 640, height = 360, rate = 20 } = {}) {
  const blocks = [];
  const blockWidth = width / 4;
  const blockHeight = Math.floor(height / 3);
  for (let bit = 0; bit < 4; bit += 1) {
    const one = (number >> (3 - bit)) & 1;
    const upper = one ? 'white' : 'black';
    const lower = one ? 'black' : 'white';
    blocks.push(`drawbox=x=${bit * blockWidth}:y=0:w=${blockWidth}:h=${blockHeight}:color=${upper}:t=fill`);
    blocks.push(`drawbox=x=${bit * blockWidth}:y=${height - blockHeight}:w=${blockWidth}:h=${blockHeight}:color=${lower}:t=fill`);
  }
  return make(join(folder, `camera-${number}-${width}x${height}@${rate}.mjpeg`), [
    '-f', 'lavfi', '-i', `testsrc2=size=${width}x${height}:rate=${rate}:duration=3`,
    '-vf', `${blocks.join(',')},format=yuvj420p`, '-c:v', 'mjpeg', '-q:v', '4',
  ]);
}

/** A microphone file for participant `number`: beeps of 300 ms with pauses of 100 ms. */
export function microphoneFile(number) {
  return make(join(folder, `microphone-${number}.wav`), [
    '-f', 'lavfi', '-i', `aevalsrc='0.5*sin(2*PI*${toneOf(number)}*t)*lt(mod(t,0.4),0.3)':s=48000:d=4`,
    '-c:a', 'pcm_s16le', '-ac', '1',
  ]);
}
