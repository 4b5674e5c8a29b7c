// A UDP relay between browsers and the server, as a router with NAT is: it can change the port from which the server
// hears a client, drop everything while TCP passes elsewhere, and carry only so much to the browsers or lose a part.

import { createSocket } from 'node:dgram';

/** What would wait longer before a narrow line is lost, in milliseconds. */
const QUEUE = 300;

export async function startRelay(serverPort) {
  const bound = (socket) => new Promise((done) => socket.bind(0, '127.0.0.1', () => done(socket)));
  const front = await bound(createSocket('udp4'));
  let behind = new Map();
  let cut = false;
  let rate = Infinity;
  let free = 0;
  let loss = 0;
  front.on('message', (datagram, { address, port }) => {
    if (cut) return;
    const client = `${address}:${port}`;
    let socket = behind.get(client);
    if (!socket) {
      socket = createSocket('udp4');
      behind.set(client, socket);
      socket.on('message', (answer) => {
        if (cut || Math.random() < loss) return;
        const now = performance.now();
        const wait = Math.max(0, free - now);
        if (wait > QUEUE) return;
        free = now + wait + (8000 * (answer.length + 28)) / rate;
        const send = () => front.send(answer, port, address);
        if (free - now < 1) send();
        else setTimeout(send, free - now);
      });
    }
    socket.send(datagram, serverPort, '127.0.0.1');
  });
  return {
    port: front.address().port,
    /** From now on the server hears every client from another port; what it sends to the old one is lost. */
    rebind() {
      const old = behind;
      behind = new Map();
      for (const socket of old.values()) socket.close();
    },
    /** From now on carries so many bits a second to the browsers. */
    narrow(bitsPerSecond) {
      rate = bitsPerSecond;
    },
    /** From now on loses such a share of what is for the browsers. */
    lose(share) {
      loss = share;
    },
    /** Drops every datagram in both directions until `mend`, and says nothing. */
    cut() {
      cut = true;
    },
    mend() {
      cut = false;
    },
    close() {
      this.rebind();
      front.close();
    },
  };
}

/** Makes a page take the server to be where the relay is; before the page is opened. */
export const through = ({ port }) => (page) => page.addInitScript((relayPort) => {
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
    return setRemoteDescription.call(this, { type, sdp: sdp.replace(/(a=candidate:\S+ \d+ \S+ \d+) \S+ \d+ typ/g, `$1 127.0.0.1 ${relayPort} typ`) });
  };
}, port);
