// Lines (../../line): the one at an end of which this runs, driven while it runs, and others that end where it does.

import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { lineBinary } from './server.mjs';

/** The first number of a network that no line has unless it is told to. */
export const freeNetwork = 78;

export class Line {
  /** The one that `line up -- …` put us at; this end is `a`, the other `b`. */
  static async here() {
    const { LINE_B, LINE_B_IPV4, LINE_CONTROL } = process.env;
    if (!LINE_B) throw new Error('runs inside an end of a line only');
    const line = new Line();
    line.host = LINE_B_IPV4;
    line.atThisEnd = [];
    /** The words before a command that runs at the other end. */
    line.atOtherEnd = ['ip', 'netns', 'exec', LINE_B];
    line.folder = mkdtempSync(join(tmpdir(), 'terrace-line-'));
    line.socket = connect(LINE_CONTROL);
    await new Promise((done, failed) => line.socket.once('connect', done).once('error', failed));
    line.answers = createInterface({ input: line.socket })[Symbol.asyncIterator]();
    return line;
  }

  /** A new line whose other end is put into the namespace `b`, and which does `change` in both directions. */
  static async to(b, network, change) {
    const line = new Line();
    line.folder = mkdtempSync(join(tmpdir(), 'terrace-line-'));
    const config = join(line.folder, 'line.toml');
    const values = Object.entries(change).map(([name, value]) => `${name} = ${value}\n`).join('');
    writeFileSync(config, `network = ${network}\nb = "${b}"\n[[change]]\n${values}`);
    line.process = spawn(lineBinary(), ['up', '--config', config], { stdio: ['pipe', 'pipe', 'inherit'] });
    const { value, done } = await createInterface({ input: line.process.stdout })[Symbol.asyncIterator]().next();
    if (done) throw new Error('the line did not come up');
    const { ready } = JSON.parse(value);
    line.host = ready.b.ipv4;
    line.atThisEnd = ['ip', 'netns', 'exec', ready.a.namespace];
    return line;
  }

  /** Requests are answered in their order. */
  #ask(request) {
    this.last = (this.last ?? Promise.resolve()).then(async () => {
      this.socket.write(`${JSON.stringify(request)}\n`);
      const { value, done } = await this.answers.next();
      if (done) throw new Error('the line is gone');
      const { ok, error } = JSON.parse(value);
      if (error) throw new Error(error);
      return ok;
    });
    return this.last;
  }

  set(change) {
    return this.#ask({ set: change });
  }

  counts() {
    return this.#ask({ counts: {} });
  }

  /** A program that runs another one at the other end, for what wants the path of one. */
  wrap(program) {
    const file = join(this.folder, program.replaceAll('/', '-'));
    writeFileSync(file, `#!/bin/sh\nexec ${this.atOtherEnd.join(' ')} ${program} "$@"\n`);
    chmodSync(file, 0o755);
    return file;
  }

  close() {
    this.socket?.destroy();
    this.process?.stdin.end();
    rmSync(this.folder, { recursive: true });
  }
}
