// Runs in the page: an encoder by WHIP and a player by WHEP with nothing but the browser's own RTCPeerConnection and
// fetch. Plain script, so that it can be injected into any page.
(() => {
  const waitFor = async (condition, patience = 20_000) => {
    const end = performance.now() + patience;
    while (!condition()) {
      if (performance.now() > end) throw new Error(`gave up waiting for ${condition}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  };

  async function open(pc, url, bearer) {
    const session = { pc, bearer, candidates: [], isComplete: false };
    pc.addEventListener('icecandidate', ({ candidate }) => {
      if (candidate) session.candidates.push(candidate.candidate);
      else session.isComplete = true;
    });
    await pc.setLocalDescription();
    const response = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/sdp' },
      body: pc.localDescription.sdp,
    });
    if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
    session.url = new URL(response.headers.get('location'), url).href;
    session.etag = response.headers.get('etag');
    session.answer = await response.text();
    await pc.setRemoteDescription({ type: 'answer', sdp: session.answer });
    await waitFor(() => pc.connectionState === 'connected');
    return session;
  }

  const patch = ({ url, bearer }, body, condition) => fetch(url, {
    method: 'PATCH',
    headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': condition },
    body,
  });

  const credentials = (sdp) => ({
    ufrag: sdp.match(/a=ice-ufrag:(\S+)/)[1],
    pwd: sdp.match(/a=ice-pwd:(\S+)/)[1],
  });

  /** Sends camera and microphone; `codec` is preferred, `layers` are simulcast encodings. */
  async function publish({ url, bearer, codec, layers, width = 640, height = 360 }) {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width, height },
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const [camera] = stream.getVideoTracks();
    const [microphone] = stream.getAudioTracks();
    pc.addTransceiver(microphone, { direction: 'sendonly', streams: [stream] });
    const video = pc.addTransceiver(camera, { direction: 'sendonly', streams: [stream], sendEncodings: layers });
    if (codec) {
      const { codecs } = RTCRtpSender.getCapabilities('video');
      const first = codecs.filter((one) => one.mimeType.toLowerCase() === `video/${codec}`);
      video.setCodecPreferences([...first, ...codecs.filter((one) => one.mimeType === 'video/rtx')]);
    }
    window.encoder = Object.assign(await open(pc, url, bearer), { camera, microphone });
  }

  /** Watches `pairs` participants, or the speaker. */
  async function watch({ url, bearer, pairs = 1 }) {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const places = [];
    for (let pair = 0; pair < pairs; pair += 1) {
      const place = {};
      for (const kind of ['video', 'audio']) place[kind] = pc.addTransceiver(kind, { direction: 'recvonly' }).receiver;
      place.element = document.createElement('video');
      place.element.autoplay = place.element.muted = true;
      place.element.srcObject = new MediaStream([place.video.track]);
      document.body.append(place.element);
      const sound = document.createElement('audio');
      sound.autoplay = sound.muted = true;
      sound.srcObject = new MediaStream([place.audio.track]);
      places.push(place);
    }
    window.player = Object.assign(await open(pc, url, bearer), { places });
  }

  /** What each place shows and sounds. */
  const watched = (milliseconds) => Promise.all(window.player.places.map(async ({ element, audio }) => ({
    number: window.receiving.numberShownBy(element),
    hertz: await window.receiving.toneHeardOn(audio.track, milliseconds),
  })));

  async function inbound(place = 0) {
    for (const stat of (await window.player.places[place].video.getStats()).values()) {
      if (stat.type === 'inbound-rtp') return { frames: stat.framesDecoded, ssrc: stat.ssrc, height: stat.frameHeight };
    }
    return null;
  }

  /** Trickles what was gathered; returns the status. */
  async function trickle(session) {
    await waitFor(() => session.isComplete);
    const lines = session.candidates.map((candidate) => `a=${candidate}`);
    const text = ['m=audio 9 UDP/TLS/RTP/SAVPF 0', 'a=mid:0', ...lines, 'a=end-of-candidates', ''].join('\r\n');
    return (await patch(session, text, session.etag)).status;
  }

  /** Restarts ICE as RFC 9725 4.3.3 has it; returns the status and whether the pair in use changed. */
  async function restart(session) {
    const { pc } = session;
    const before = credentials(pc.currentRemoteDescription.sdp);
    pc.restartIce();
    await pc.setLocalDescription();
    const mine = credentials(pc.localDescription.sdp);
    const response = await patch(session, `a=ice-ufrag:${mine.ufrag}\r\na=ice-pwd:${mine.pwd}\r\n`, '*');
    const fragment = await response.text();
    const theirs = credentials(fragment);
    const answer = session.answer.replaceAll(before.ufrag, theirs.ufrag).replaceAll(before.pwd, theirs.pwd);
    await pc.setRemoteDescription({ type: 'answer', sdp: answer });
    const isNewTag = response.headers.get('etag') !== session.etag;
    session.etag = response.headers.get('etag');
    return { status: response.status, isNewTag, isNewSession: before.ufrag !== theirs.ufrag };
  }

  const end = ({ url, bearer, pc }) =>
    fetch(url, { method: 'DELETE', headers: { authorization: `Bearer ${bearer}` } }).then(({ status }) => {
      pc.close();
      return status;
    });

  window.whip = { publish, watch, watched, inbound, trickle, restart, end };
})();
