// A crowd: many participants of a meeting in one page without user interface, so that a meeting of fifty costs one
// small machine little.

const FAMILY_NAMES = [...'王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗'];
const GIVEN_NAMES = ['建国', '秀英', '伟', '洋', '静', '帆', '敏', '志强', '涛', '桂芳', '磊', '晓梅'];

/** Names as they stand in a county's lists; the third is long, as offices' names are. */
function nameOf(index) {
  if (index === 2) return '青山县水利局防汛抗旱指挥部办公室值班席';
  return FAMILY_NAMES[index % FAMILY_NAMES.length] + GIVEN_NAMES[(index * 5 + Math.floor(index / FAMILY_NAMES.length)) % GIVEN_NAMES.length];
}

export class Guests {
  #page;
  #server;
  #code;
  #count = 0;

  /** A page for the guests of the meeting with `code`. `harnessUrl` serves the media library. */
  static async open(browser, harnessUrl, server, code) {
    const guests = new Guests();
    guests.#server = server;
    guests.#code = code;
    const context = await browser.newContext({ permissions: ['camera', 'microphone'] });
    guests.#page = await context.newPage();
    await guests.#page.goto(harnessUrl);
    await guests.#page.evaluate(prepare);
    return guests;
  }

  /** Lets guests come until there are `count`. The first two have a picture, the second is heard. */
  async be(count) {
    while (this.#count < count) {
      const index = this.#count;
      const answer = await fetch(`${this.#server.url}/api/meetings/${this.#code}/join`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name: nameOf(index) }),
      });
      if (!answer.ok) throw new Error(`a guest was not let in: ${await answer.text()}`);
      const { token } = await answer.json();
      await this.#page.evaluate((guest) => window.comeIn(guest), {
        url: this.#server.socketUrl, token, hasPicture: index < 2, isHeard: index === 1, hue: 205 + index * 30,
      });
      this.#count += 1;
    }
  }

  /** The first guest shares a page of figures. */
  share() {
    return this.#page.evaluate(() => window.shareFigures());
  }

  stopSharing() {
    return this.#page.evaluate(() => window.stopSharing());
  }

  /** The second guest asks for the floor, or no longer does. */
  raiseHand(isUp) {
    return this.#page.evaluate((up) => window.guests[1].localParticipant.setAttributes({ hand: up ? String(Date.now()) : '' }), isUp);
  }

  /** The first guest writes to all. */
  write(text) {
    return this.#page.evaluate((words) => window.guests[0].localParticipant.sendText(words, { topic: 'lk.chat' }), text);
  }

  close() {
    return this.#page.context().close();
  }
}

/** Runs in the page. */
function prepare() {
  const { Room, Track } = window.LivekitClient;
  window.guests = [];

  /** A picture that is drawn anew five times a second. */
  function drawn(width, height, draw) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const pen = canvas.getContext('2d');
    let turn = 0;
    const again = () => draw(pen, (turn += 1));
    again();
    setInterval(again, 200);
    return canvas.captureStream(5).getVideoTracks()[0];
  }

  /** Somebody in front of a wall: enough of a person to judge a page by. */
  const person = (hue) => drawn(640, 360, (pen, turn) => {
    const sway = 6 * Math.sin(turn / 4);
    pen.fillStyle = `hsl(${hue} 24% 72%)`;
    pen.fillRect(0, 0, 640, 360);
    pen.fillStyle = `hsl(${hue} 28% 62%)`;
    pen.fillRect(430, 0, 210, 360);
    pen.fillStyle = `hsl(${hue + 15} 38% 30%)`;
    pen.beginPath();
    pen.ellipse(320 + sway / 2, 400, 170, 150, 0, 0, 7);
    pen.fill();
    pen.fillStyle = '#e2b896';
    pen.fillRect(290 + sway, 215, 60, 60);
    pen.beginPath();
    pen.ellipse(320 + sway, 160, 68, 84, 0, 0, 7);
    pen.fill();
    pen.fillStyle = '#2b2320';
    pen.beginPath();
    pen.ellipse(320 + sway, 118, 74, 56, 0, Math.PI, 7);
    pen.fill();
  });

  const figures = () => drawn(1280, 720, (pen) => {
    pen.fillStyle = '#fff';
    pen.fillRect(0, 0, 1280, 720);
    pen.fillStyle = '#0b3d91';
    pen.font = '48px sans-serif';
    pen.fillText('全县水位一览', 80, 110);
    pen.font = '28px sans-serif';
    for (let row = 0; row < 8; row += 1) pen.fillText(`第 ${row + 1} 水文站   ${(12.3 + row * 0.7).toFixed(1)} 米`, 80, 190 + row * 60);
  });

  window.comeIn = async ({ url, token, hasPicture, isHeard, hue }) => {
    const room = new Room({ singlePeerConnection: true });
    await room.connect(url, token, { autoSubscribe: false });
    window.guests.push(room);
    if (hasPicture) {
      await room.localParticipant.publishTrack(person(hue), { source: Track.Source.Camera, simulcast: false, videoCodec: 'vp8' });
    }
    if (isHeard) await room.localParticipant.setMicrophoneEnabled(true);
  };

  let shared = null;
  window.shareFigures = async () => {
    shared = figures();
    await window.guests[0].localParticipant.publishTrack(shared, { source: Track.Source.ScreenShare, simulcast: false, videoCodec: 'vp8' });
  };
  window.stopSharing = () => window.guests[0].localParticipant.unpublishTrack(shared, true);
}
