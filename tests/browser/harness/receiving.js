// Runs in the page: reads numbers from pictures and frequencies from tones.
// Plain script, so that it can be injected into any page, ours or the product's.
(() => {
  /** The number a video element shows, or null when what it shows is no number. */
  function numberShownBy(video) {
    if (!video.videoWidth) return null;
    const canvas = document.createElement('canvas');
    canvas.width = 64;
    canvas.height = 36;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0, 64, 36);
    const brightness = (x, y) => {
      const { data } = context.getImageData(x - 1, y - 1, 3, 3);
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) sum += data[i] + data[i + 1] + data[i + 2];
      return sum / (data.length / 4) / 3;
    };
    let number = 0;
    for (let bit = 0; bit < 4; bit += 1) {
      const upper = brightness(8 + bit * 16, 5);
      const lower = brightness(8 + bit * 16, 30);
      if (Math.abs(upper - lower) < 90) return null;
      number = number * 2 + (upper > lower ? 1 : 0);
    }
    return number;
  }

  const ears = new Map();
  let audioContext;

  /** The loudest frequency heard on a media stream track within `milliseconds`, or null in silence. */
  async function toneHeardOn(track, milliseconds = 1500) {
    audioContext ??= new AudioContext();
    await audioContext.resume();
    let analyser = ears.get(track);
    if (!analyser) {
      analyser = audioContext.createAnalyser();
      analyser.fftSize = 8192;
      analyser.smoothingTimeConstant = 0;
      audioContext.createMediaStreamSource(new MediaStream([track])).connect(analyser);
      ears.set(track, analyser);
    }
    const bins = new Float32Array(analyser.frequencyBinCount);
    const hertzPerBin = audioContext.sampleRate / analyser.fftSize;
    let loudest = { level: -55, hertz: null };
    const end = performance.now() + milliseconds;
    while (performance.now() < end) {
      analyser.getFloatFrequencyData(bins);
      // Below 300 Hz and above 4 kHz none of our tones lies, but hum and codec noise does.
      for (let bin = Math.ceil(300 / hertzPerBin); bin < 4000 / hertzPerBin; bin += 1) {
        if (bins[bin] > loudest.level) loudest = { level: bins[bin], hertz: bin * hertzPerBin };
      }
      await new Promise((done) => setTimeout(done, 50));
    }
    return loudest.hertz;
  }

  /** What `room` (a livekit-client Room) receives now: identity → number shown and tone heard. */
  async function received(room, milliseconds) {
    const all = {};
    await Promise.all(
      [...room.remoteParticipants.values()].map(async (participant) => {
        const one = { number: null, hertz: null, videoMuted: null, audioMuted: null };
        all[participant.identity] = one;
        for (const publication of participant.trackPublications.values()) {
          if (publication.source === 'camera') {
            one.videoMuted = publication.isMuted;
            const video = publication.videoTrack?.attachedElements.find((element) => element.videoWidth);
            if (video) one.number = numberShownBy(video);
          } else if (publication.source === 'microphone') {
            one.audioMuted = publication.isMuted;
            const track = publication.audioTrack?.mediaStreamTrack;
            if (track) one.hertz = await toneHeardOn(track, milliseconds);
          }
        }
      }),
    );
    return all;
  }

  /** getStats of what is received of one remote track: codec, frame size, frames decoded, bytes. */
  async function inboundStats(room, identity, source = 'camera') {
    const publication = room.remoteParticipants.get(identity)?.getTrackPublication(source);
    const report = await publication?.track?.receiver?.getStats();
    if (!report) return null;
    for (const stat of report.values()) {
      if (stat.type !== 'inbound-rtp') continue;
      return {
        codec: report.get(stat.codecId)?.mimeType ?? null,
        frameWidth: stat.frameWidth ?? 0,
        frameHeight: stat.frameHeight ?? 0,
        framesDecoded: stat.framesDecoded ?? 0,
        bytesReceived: stat.bytesReceived,
        packetsReceived: stat.packetsReceived,
        packetsLost: stat.packetsLost,
        freezeCount: stat.freezeCount ?? 0,
        keyFramesDecoded: stat.keyFramesDecoded ?? 0,
      };
    }
    return null;
  }

  /** What getStats tells of a remote track, and of the reports about it: {inbound, remote} of camera and microphone. */
  async function reports(room, identity) {
    const all = { at: performance.timeOrigin + performance.now() };
    for (const source of ['camera', 'microphone']) {
      const report = await room.remoteParticipants.get(identity)?.getTrackPublication(source)?.track?.receiver?.getStats();
      const stats = [...(report?.values() ?? [])];
      const inbound = stats.find((stat) => stat.type === 'inbound-rtp');
      all[source] = { inbound, remote: stats.find((stat) => stat.type === 'remote-outbound-rtp' && stat.localId === inbound?.id) };
    }
    return all;
  }

  window.receiving = { numberShownBy, toneHeardOn, received, inboundStats, reports };
})();
