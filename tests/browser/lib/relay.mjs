// A UDP relay between browsers and the server, as a router with NAT is: it can change the port from which the server
// hears a client.

import { createSocket } from 'node:dgram';

export async function startRelay(serverPort) {
  const bound = (socket) => new Promise((done) => socket.bind(0, '127.0.0.1', () => done(socket)));
  const front = await bound(createSocket('udp4'));
  let behind = new Map();
  front.on('message', (datagram, { address, port }) => {
    const client = `${address}:${port}`;
    let socket = behind.get(client);
    if (!socket) {
      socket = createSocket('udp4');
      behind.set(client, socket);
      socket.on('message', (answer) => front.send(answer, port, address));
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
    close() {
      this.rebind();
      front.close();
    },
  };
}
