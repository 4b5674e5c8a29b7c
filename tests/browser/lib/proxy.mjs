// A TCP relay between page and server whose line can be cut and mended.

import { connect, createServer } from 'node:net';

/** Relays to `port` on loopback. Media is UDP and does not pass here: cutting this cuts signalling alone. */
export async function startProxy(port) {
  const open = new Set();
  let cut = false;
  const server = createServer((near) => {
    if (cut) return near.destroy();
    const far = connect(port, '127.0.0.1');
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        open.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return {
    port: server.address().port,
    /** Ends every connection and refuses new ones until `mend`. */
    cut() {
      cut = true;
      for (const socket of open) socket.destroy();
    },
    /** Keeps connections open but passes nothing: a line that is dead and does not say so. */
    freeze() {
      for (const socket of open) socket.unpipe?.().pause();
    },
    mend() {
      cut = false;
    },
    close() {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}
