// A participant without user interface, driven by the tests through `page.evaluate`.

/** Joins and publishes camera and microphone as asked; resolves when connected and published. */
window.joinRoom = async ({
  url, token, codec = 'vp8', simulcast = true, singleConnection = true, adaptiveStream = false, dynacast = false,
  camera = true, microphone = true, width = 640, height = 360, frameRate = 20, maxBitrate, layers, generated = null,
}) => {
  const { Room, RoomEvent, Track, VideoPresets, VideoPreset } = LivekitClient;
  const room = new Room({
    singlePeerConnection: singleConnection,
    adaptiveStream: adaptiveStream ? { pixelDensity: 1 } : false,
    dynacast,
    publishDefaults: { videoCodec: codec, simulcast, backupCodec: false, red: true, dtx: true },
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
async function publishGenerated(room, { number, hertz }, { camera, microphone }) {
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
    const context = new AudioContext();
    await context.resume();
    const tone = context.createOscillator();
    tone.frequency.value = hertz;
    const loudness = context.createGain();
    loudness.gain.value = 0.5;
    const out = context.createMediaStreamDestination();
    tone.connect(loudness).connect(out);
    tone.start();
    await room.localParticipant.publishTrack(out.stream.getAudioTracks()[0], { source: Track.Source.Microphone, dtx: false });
  }
}

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

/** How many peer connections the engine has: one on the single-connection endpoint, two otherwise. */
window.connectionCount = () => [room.engine.pcManager?.publisher, room.engine.pcManager?.subscriber].filter(Boolean).length;
