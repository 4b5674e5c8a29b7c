// A participant without user interface, driven by the tests through `page.evaluate`.

/** Joins and publishes camera and microphone as asked; resolves when connected and published. */
window.joinRoom = async ({
  url, token, codec = 'vp8', simulcast = true, singleConnection = true, adaptiveStream = false, dynacast = false,
  camera = true, microphone = true, width = 640, height = 360, frameRate = 20, maxBitrate, layers, generated = null,
  backupCodec = false, backupCodecPolicy,
}) => {
  const { Room, RoomEvent, Track, VideoPresets, VideoPreset } = LivekitClient;
  const room = new Room({
    singlePeerConnection: singleConnection,
    adaptiveStream: adaptiveStream ? { pixelDensity: 1 } : false,
    dynacast,
    publishDefaults: { videoCodec: codec, simulcast, backupCodec, backupCodecPolicy, red: true, dtx: true },
  });
  window.room = room;
  window.events = [];
  window.joinedAt = performance.now();
  window.firstFrame = {};
  const note = (name) => (...details) => window.events.push({ name, at: performance.now(), details: details.map(String) });
  for (const name of ['Reconnecting', 'SignalReconnecting', 'Reconnected', 'Disconnected']) room.on(RoomEvent[name], note(name));
  room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) =>
    window.events.push({ name: 'DataReceived', at: performance.now(), text: new TextDecoder().decode(payload), from: participant?.identity, topic }));
  room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
    const element = track.attach();
    element.dataset.identity = participant.identity;
    element.dataset.source = publication.source;
    document.body.append(element);
    if (track.kind === Track.Kind.Video) {
      element.requestVideoFrameCallback?.(() => {
        window.firstFrame[participant.identity] ??= performance.now() - window.joinedAt;
      });
    }
  });
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
  await room.connect(url, token);
  window.connectedAfter = performance.now() - window.joinedAt;
  if (generated !== null) {
    await publishGenerated(room, generated, { camera, microphone });
    return window.connectedAfter;
  }
  const encoding = maxBitrate ? { videoEncoding: { maxBitrate, maxFramerate: frameRate } } : {};
  const presets = layers ? { videoSimulcastLayers: layers.map((l) => new VideoPreset(l.width, l.height, l.maxBitrate, frameRate)) } : {};
  if (camera) {
    await room.localParticipant.setCameraEnabled(true, { resolution: { width, height, frameRate } }, { ...encoding, ...presets });
  }
  if (microphone) {
    await room.localParticipant.setMicrophoneEnabled(true, { echoCancellation: false, noiseSuppression: false, autoGainControl: false });
  }
  return window.connectedAfter;
};

/** Publishes a picture and a tone made in the page: for browsers that take no camera file. */
async function publishGenerated(room, { number }, { camera, microphone }) {
  const { Track } = LivekitClient;
  if (camera) {
    const canvas = document.createElement('canvas');
    canvas.width = 640;
    canvas.height = 360;
    const context = canvas.getContext('2d');
    let turn = 0;
    const draw = () => {
      for (let bit = 0; bit < 4; bit += 1) {
        const one = (number >> (3 - bit)) & 1;
        context.fillStyle = one ? '#fff' : '#000';
        context.fillRect(bit * 160, 0, 160, 120);
        context.fillStyle = one ? '#000' : '#fff';
        context.fillRect(bit * 160, 240, 160, 120);
      }
      turn += 1;
      context.fillStyle = `hsl(${turn * 7},80%,50%)`;
      context.fillRect(0, 120, 640, 120);
    };
    draw();
    setInterval(draw, 50);
    await room.localParticipant.publishTrack(canvas.captureStream(20).getVideoTracks()[0], {
      source: Track.Source.Camera, simulcast: false, videoCodec: 'vp8',
    });
  }
  if (microphone) {
    // Not an oscillator: an AudioContext may not start where there is no sound card.
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    await room.localParticipant.publishTrack(stream.getAudioTracks()[0], { source: Track.Source.Microphone, dtx: false });
  }
}

/**
 * The loudest frequency on an identity's microphone, from a recording decoded afterwards: slower than
 * `receiving.toneHeardOn`, but needs no running AudioContext. Null when nothing was heard.
 */
window.toneRecordedFrom = async (identity) => {
  const track = room.remoteParticipants.get(identity)?.getTrackPublication('microphone')?.audioTrack?.mediaStreamTrack;
  if (!track) return null;
  const recorder = new MediaRecorder(new MediaStream([track]));
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  const stopped = new Promise((done) => (recorder.onstop = done));
  recorder.start();
  await new Promise((done) => setTimeout(done, 2000));
  recorder.stop();
  await stopped;
  const rate = 48000;
  const recorded = await new OfflineAudioContext(1, rate, rate)
    .decodeAudioData(await new Blob(parts).arrayBuffer()).catch(() => null);
  if (!recorded) return null;
  const samples = recorded.getChannelData(0);
  let loudest = { power: 0.5, hertz: null };
  for (let hertz = 300; hertz < 4000; hertz += 5) {
    // Goertzel: the power at one frequency.
    const coefficient = 2 * Math.cos((2 * Math.PI * hertz) / rate);
    let [one, two] = [0, 0];
    for (const sample of samples) [one, two] = [sample + coefficient * one - two, one];
    const power = one * one + two * two - coefficient * one * two;
    if (power > loudest.power) loudest = { power, hertz };
  }
  return loudest.hertz;
};

/** The codecs this participant really sends, by getStats. */
window.sentCodecs = async () => {
  const codecs = new Set();
  for (const publication of room.localParticipant.videoTrackPublications.values()) {
    const report = await publication.videoTrack?.sender?.getStats();
    for (const stat of report?.values() ?? []) {
      if (stat.type === 'outbound-rtp' && stat.framesEncoded > 0 && stat.codecId) codecs.add(report.get(stat.codecId).mimeType);
    }
  }
  return [...codecs];
};

/** Bytes of video that this participant has sent, by codec. */
window.sentBytes = async () => {
  const sent = {};
  const report = await room.engine.pcManager.publisher.getStats();
  for (const stat of report.values()) {
    if (stat.type !== 'outbound-rtp' || stat.kind !== 'video' || !stat.bytesSent || !stat.codecId) continue;
    const codec = report.get(stat.codecId).mimeType.toLowerCase();
    sent[codec] = (sent[codec] ?? 0) + stat.bytesSent;
  }
  return sent;
};

/** How many peer connections the engine has: one on the single-connection endpoint, two otherwise. */
window.connectionCount = () => [room.engine.pcManager?.publisher, room.engine.pcManager?.subscriber].filter(Boolean).length;
