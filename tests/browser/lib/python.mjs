// A receiver of the Python SDK (../../python/receiver.py) as a process of its own.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { token } from './server.mjs';

const folder = fileURLToPath(new URL('../../python', import.meta.url));

export class Receiver {
  /** The newest of its reports. */
  told = {};

  /** `wrap`: the words before a command that runs where it is to run. */
  constructor({ url, room, identity, wrap = [] }) {
    const [program, ...words] = [...wrap, process.env.PYTHON ?? 'python3', '-u', 'receiver.py', url, token({ room, identity })];
    this.process = spawn(program, words, { cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] });
    this.ended = new Promise((done) => this.process.once('exit', done));
    createInterface({ input: this.process.stdout }).on('line', (line) => { this.told = JSON.parse(line); });
  }

  /** From now on the longest time that a picture stood counts anew. */
  begin() {
    this.process.stdin.write('begin\n');
  }

  /** What layer it wants of every picture: low, medium or high. */
  wish(quality) {
    this.process.stdin.write(`${quality}\n`);
  }

  close() {
    this.process.kill();
    return this.ended;
  }
}
