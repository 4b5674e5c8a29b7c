// Runs in the page: a camera that flashes and a microphone that beeps at the same instants, and how far apart a
// receiver shows and plays them. Plain script.
(() => {
  /** Between two flashes, and how long one is, in milliseconds. */
  const PERIOD = 1000;
  const FLASH = 200;

  /** A picture that no encoder likes. */
  function makeNoise(width, height) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    const image = context.createImageData(width, height);
    for (let at = 0; at < image.data.length; at += 1) image.data[at] = at % 4 === 3 ? 255 : Math.random() * 255;
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /**
   * Publishes them; `maxBitrate` makes a picture of so many bits a second, of which a `noisy` part is noise; `simulcast`
   * one in layers.
   */
  async function publish(room, { width = 640, height = 360, maxBitrate, noisy = 0.5, simulcast = false } = {}) {
    const { Track } = LivekitClient;
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    const [picture] = canvas.captureStream(0).getVideoTracks();
    const noise = maxBitrate ? makeNoise(width, Math.round(height * noisy)) : null;
    const audio = new AudioContext();
    await audio.resume();
    const [tone, gain, sink] = [audio.createOscillator(), audio.createGain(), audio.createMediaStreamDestination()];
    gain.gain.value = 0;
    tone.frequency.value = 1000;
    tone.connect(gain).connect(sink);
    tone.start();
    let wasLit = false;
    setInterval(() => {
      const phase = performance.now() % PERIOD;
      const isLit = phase < FLASH;
      if (isLit !== wasLit) gain.gain.setValueAtTime(isLit ? 0.8 : 0, audio.currentTime);
      wasLit = isLit;
      context.fillStyle = isLit ? '#fff' : '#000';
      context.fillRect(0, 0, width, height);
      if (noise) {
        const shift = Math.random() * noise.width;
        context.drawImage(noise, -shift, height / 2);
        context.drawImage(noise, width - shift, height / 2);
      }
      // Something that changes, so that every frame is coded.
      context.fillStyle = '#888';
      context.fillRect((phase / PERIOD) * width, height - 20, 20, 20);
      picture.requestFrame();
    }, 40);
    await room.localParticipant.publishTrack(picture, {
      source: Track.Source.Camera, simulcast, videoCodec: 'vp8',
      ...(maxBitrate ? { videoEncoding: { maxBitrate, maxFramerate: 25 } } : {}),
    });
    await room.localParticipant.publishTrack(sink.stream.getAudioTracks()[0], { source: Track.Source.Microphone, dtx: false, red: true });
  }

  /**
   * Notes when flashes of `identity` are shown and when its beeps are played. `window.offsets` has for each pair how
   * many milliseconds the picture comes after the sound.
   */
  function watch(room, identity) {
    const of = (source) => room.remoteParticipants.get(identity).getTrackPublication(source).track;
    const video = of('camera').attachedElements[0];
    const small = document.createElement('canvas');
    Object.assign(small, { width: 8, height: 8 });
    const context = small.getContext('2d', { willReadFrequently: true });
    const seen = [];
    const heard = [];
    window.offsets = [];
    let lit = performance.now();
    const look = (now, { expectedDisplayTime }) => {
      context.drawImage(video, 0, 0, 8, 8);
      const isLit = context.getImageData(4, 1, 1, 1).data[0] > 128;
      if (isLit && now - lit > PERIOD / 2) seen.push(expectedDisplayTime);
      if (isLit) lit = now;
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);

    const audio = new AudioContext();
    const analyser = audio.createAnalyser();
    analyser.fftSize = 1024;
    audio.createMediaStreamSource(new MediaStream([of('microphone').mediaStreamTrack])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    // A gap in a beep, where a packet was lost, is no beginning.
    let loud = performance.now();
    setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const at = samples.findIndex((sample) => Math.abs(sample) > 0.1);
      const now = performance.now();
      if (at >= 0) {
        if (now - loud > PERIOD / 2) heard.push(now - ((samples.length - at) * 1000) / audio.sampleRate);
        loud = now;
      }
      while (seen.length && heard.length) {
        const offset = seen[0] - heard[0];
        if (Math.abs(offset) < PERIOD / 2) {
          window.offsets.push(offset);
          seen.shift();
          heard.shift();
        } else if (offset < 0) seen.shift();
        else heard.shift();
      }
    }, 5);
  }

  window.stamped = { publish, watch };
})();
